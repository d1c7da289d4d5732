"""Looking on: customers follow an order, staff the fleet, each over a connection that stays open.

    Kafka -> feed (a thread) -> hub: which orders are due -> one statement for all of them -> frames
                                                                  frames -> viewers (no task each)

Kafka says which orders to look at now. A look is one statement for all that are due: it reads the
window, the number of the newest event and the driver's newest fix together, so a frame is never
sent on older knowledge than that. Orders that nobody spoke of are looked at every few seconds, so
whatever the feed loses is healed.

A frame is encoded once and the same bytes are written to every viewer of its order, straight to
the connection: uvicorn hands it over once the answer's head is out.
"""
