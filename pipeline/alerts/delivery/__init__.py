"""Attempts, retries and the record of what arrived."""
