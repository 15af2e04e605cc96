"""Who may use the served API and dashboard: keys, sessions, scopes, limits, audit."""
