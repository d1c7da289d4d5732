"""Live streams: customers follow an order, staff the fleet, each over a long-lived connection.

    Kafka -> feed (a thread) -> hub: the due orders -> one statement for all of them -> frames
                                                                frames -> viewers (no task each)

Records of Kafka make orders due. A poll is one statement for all due orders: it reads the window,
the number of the newest event and the driver's newest fix together, so a frame never rests on older
data. Idle orders are polled every few seconds, which repairs whatever the feed lost.

A frame is encoded once, and the same bytes are written to every viewer of its order, straight to
the connection: uvicorn releases it once the answer's head is sent.
"""
