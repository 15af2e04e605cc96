"""Senders of messages over HTTP, e-mail and Kafka, with the SSRF filter."""
