"""Kafka: the topics' specifications, and reading a topic from end to end."""
