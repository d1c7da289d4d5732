"""`./run load`: many devices on a stack of its own, and what one fix costs there.

    conductor (run.py) ── plan, commands ──> generator, one a broker ── MQTT ──> Mosquitto -> ...
        │    <── figures, each second ──      viewers, one process ── SSE ──> tracking_api
        ├── reads /proc and the services' metrics, each second
        └── settles: what the devices published, device by device, against the database

The generators are plain epoll loops without an object per message: what a fix holds follows from
its device and its seq, so that even the journal that a device would keep is no more than a number.
"""
