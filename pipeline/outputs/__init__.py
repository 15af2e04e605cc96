"""Verdicts out: topics of Kafka and receivers of Prometheus remote write."""
