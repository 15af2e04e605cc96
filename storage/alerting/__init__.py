"""Outbox, alerts, deliveries, endpoints and silences."""
