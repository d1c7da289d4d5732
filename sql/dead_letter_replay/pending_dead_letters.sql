-- How many dead letters wait for Kafka, and the database's time.
SELECT
    (SELECT count(*) FROM doorstep.outbox WHERE topic = 'dead-letter') AS letters,
    clock_timestamp() AS now
