-- The next offset to be recorded, per partition of a topic.
SELECT partition, next_offset
FROM doorstep.kafka_offset
WHERE cluster_id = %(cluster_id)s AND topic_id = %(topic_id)s
