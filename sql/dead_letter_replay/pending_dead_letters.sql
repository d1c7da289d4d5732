-- The number of dead letters not yet published to Kafka, and the time of the database server.
SELECT
    (SELECT count(*) FROM doorstep.outbox WHERE topic = 'dead-letter') AS dead_letters,
    clock_timestamp() AS now
