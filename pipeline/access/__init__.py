"""Access to the served API and dashboard: keys, sessions, scopes, audit."""
