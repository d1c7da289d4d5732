"""The reference device: what a phone app copies.

journal         fixes on disk until the committed watermark passes them
connection      one MQTT 5 session over TLS or TCP
retransmission  which fixes to send again, from the watermark's gaps
device          the device itself: journal, session, resends, sampling
sampling/       which fixes are worth sending
stdin_device    `python -m device`: fixes on standard input
"""
