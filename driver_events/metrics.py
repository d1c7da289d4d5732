"""The Prometheus metrics of driver_events."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 300, 3600)

FIXES = Counter("doorstep_driver_events_fixes", "Fixes, by outcome", ["outcome"])
for _outcome in ("committed", "parked"):  # Prometheus sees no increase in a series' first value
    FIXES.labels(_outcome)
REFUSED = Counter("doorstep_driver_events_refused", "Fixes refused or quarantined", ["reason"])
CHATTY = Counter(
    "doorstep_driver_events_chatty", "Devices over 5 fixes/s in the long run, counted once an hour"
)
DEAD_LETTERS = Counter("doorstep_driver_events_dead_letters", "Dead letters written", ["reason"])
DEAD_LETTERS_DROPPED = Counter(
    "doorstep_driver_events_dead_letters_dropped",
    "Dead letters not kept: their device had more than DEAD_LETTERS_PER_MINUTE",
)
BATCH_FIXES = Histogram(
    "doorstep_driver_events_batch_fixes",
    "Fixes per batch",
    buckets=(1, 5, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000),
)
BATCH_S = Histogram(
    "doorstep_driver_events_batch_seconds", "Time to record one batch", buckets=_LATENCY_S
)
COMMIT_LATENCY = Histogram(
    "doorstep_driver_events_commit_latency_seconds",
    "From the phone's clock (fix_at) or the arrival (received_at) to the commit; a sample of "
    "about 25 fixes per batch",
    ["since"],
    buckets=_LATENCY_S,
)
LAG = Gauge("doorstep_driver_events_lag", "Records of driver-pos not recorded yet", ["partition"])
REJOINS = Counter(
    "doorstep_driver_events_rejoins", "Times the consumer rejoined its group", ["reason"]
)
DELETED_UNREAD = Counter(
    "doorstep_driver_events_deleted_unread",
    "Records that Kafka deleted before they were read; devices resend theirs",
    ["topic"],
)
WRONG_TIMESTAMPS = Counter(
    "doorstep_driver_events_wrong_timestamps",
    "Records whose timestamp is of a wrong clock; the time at which they were read counts",
)
PAUSES = Counter("doorstep_driver_events_pauses", "Times a batch waited for the database")
WORKER_HEALTHY = Gauge(
    "doorstep_driver_events_worker_healthy", "0 while a dependency is unavailable", ["worker"]
)
WATERMARKS = Counter("doorstep_driver_events_watermarks", "Watermarks sent to devices")
POSITIONS = Counter("doorstep_driver_events_positions", "Positions for the live feed", ["outcome"])
OUTBOX = Counter("doorstep_driver_events_outbox", "Outbox records that Kafka confirmed", ["topic"])
PHONES_IGNORED = Counter(
    "doorstep_driver_events_phones_ignored",
    "Messages of phone apps that are no positions",
    ["reason"],
)
POINTS = Counter("doorstep_driver_events_points", "Points of series, by outcome", ["outcome"])
POINTS_EXPIRED = Counter(
    "doorstep_driver_events_points_expired", "Points deleted past their retention"
)
EXPIRED = Counter(
    "doorstep_driver_events_expired", "Rows of personal data expired past their retention", ["kind"]
)
OFF_DUTY_DROPPED = Counter(
    "doorstep_driver_events_off_duty_dropped", "Fixes taken off duty, which are not kept"
)
PACKED = Counter("doorstep_driver_events_packed", "Fixes of sealed days packed into chunks")
UNPARKED = Counter("doorstep_driver_events_unparked", "Parked fixes recorded later")
