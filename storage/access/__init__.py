"""API keys, sessions, the audit log, and answers kept for repeated requests."""
