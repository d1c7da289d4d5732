"""The native launcher: servers and services as plain processes, without containers.

    Stack.up() ── supervisord ─┬─ postgres
                               ├─ kafka, mosquitto-1 … n
                               ├─ bridge, driver_events, driver_api, tracking_api, webhooks
                               └─ supervisor_guard

stack             start, status, stop
paths, addresses  the files of a stack, and where its processes listen
processes         command, environment and stop signal of each process
setup             data folders, topics, schema
supervisor        keeps the processes running; supervisor_guard keeps supervisord running
probes, status    readiness
postgres, kafka, mosquitto   configuration and command of each server
users             runs servers as users of their own when the launcher runs as root
programs          finds what `./run` unpacks
private_file      replaces a file atomically, for one user
compose_*         the same set-up for docker-compose.yml

Services are started with `python -m`, never imported.
"""
