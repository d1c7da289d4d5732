"""The only part of Doorstep that talks to PostgreSQL.

`write` is for driver_events and the HTTP door (fixes, offsets, outbox), `commands` for the APIs
(orders, drivers, tokens), `pool` opens their connections, `admin` is the owner's. Every
psycopg error comes out as a DoorstepError (`translate`). The statements are in `sql/queries.sql`.
"""
