"""Metrics, health, logs, watchdog and the HTTP server for operators."""
