"""The page /observe: dashboards of Prometheus and a view of Kafka, for admins."""
