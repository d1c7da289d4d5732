"""Starts the real servers natively: PostgreSQL, Kafka, Mosquitto and our services."""
