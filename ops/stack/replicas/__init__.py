"""`./run up --ha`: a standby of the database under Patroni, three etcd and three Kafka nodes."""
