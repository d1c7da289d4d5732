-- How far each partition of a topic is recorded.
SELECT partition, next_offset
FROM doorstep.kafka_offset
WHERE cluster_id = %(cluster_id)s AND topic_id = %(topic_id)s
