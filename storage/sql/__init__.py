"""Connections, locks, column types and schema versions."""
