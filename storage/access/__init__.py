"""Rows of who may use the server: API keys, sessions, the audit log, answers kept for repeats."""
