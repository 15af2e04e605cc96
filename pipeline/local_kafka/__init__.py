"""A local Apache Kafka for the demo, tests and first steps."""
