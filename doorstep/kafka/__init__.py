"""Kafka: topic specifications, and reading a topic by offsets."""
