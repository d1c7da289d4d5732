"""Access to PostgreSQL.

    fix_writer      fixes, offsets, outbox: driver_events and driver_api
    commands        orders, drivers, tokens: the APIs
    admin           registration, partitions: the database's owner
    compaction      packing the history
    pool, deadline  connections, and time limits for the APIs
    tables          SQLAlchemy tables, for queries that are composed from filters

Fixed statements are named in `sql/` and sent by psycopg. Every psycopg error is raised as a
DoorstepError (`error_mapping`).
"""
