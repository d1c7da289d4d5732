"""`./run load`: a load test of many devices on a temporary stack, and the CPU time per fix.

    coordinator (run.py) ── plan, commands ──> one generator per broker ── MQTT ──> Mosquitto -> …
        │    <── statistics, every second ──   one viewers process ── SSE ──> tracking_api
        ├── samples /proc and the services' metrics, every second
        └── reconciles the fixes that each device published with the database

A generator is an epoll loop without an object per message. The content of a fix is a function of
its device and seq, so a device's journal is a single number.
"""
