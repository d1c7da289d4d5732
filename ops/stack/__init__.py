"""The launcher: real servers and the services as plain processes, without containers.

    ./run ── python -m ops.stack ── Stack.up()
                                           └─ supervisord ─┬─ postgres
                                                           ├─ kafka, mosquitto-1 … n
                                                           ├─ bridge, driver_events
                                                           └─ driver_api, tracking_api

`paths` says where everything lies, `addresses` where it listens, `parts` what runs and
with which variables, `supervise` keeps it running, `probes` asks whether it is ready. Services are
started with `python -m`, never imported.
"""
