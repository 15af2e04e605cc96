"""Kafka topics as a source, by kafka-python or confluent-kafka."""
