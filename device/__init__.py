"""The reference device: what a phone app copies.

device          the device: connection, messages in both directions
journal         fixes on disk until the committed watermark covers them
outbox          which message goes out next
retransmission  which fixes to resend, by the gaps of an ack
timeouts        overdue PUBACKs and acks
connection      one MQTT connection over TCP or TLS
sampling/       which fixes are worth sending
publish_spans   traces of sampled fixes, if they are on
device_session  one device with a journal of its own
stdin_device    `python -m device`: fixes from standard input
settings        addresses and credentials
"""
