"""The MQTT topics.

doorstep/v1/drivers/{driver_id}/{position|status|ack|command}
doorstep/v1/series/{source_id}/{measure}
"""

from __future__ import annotations

PREFIX = "doorstep/v1/drivers/"
POSITION = "position"
STATUS = "status"
ACK = "ack"
COMMAND = "command"
SERIES_PREFIX = "doorstep/v1/series/"
SERIES_FILTER = SERIES_PREFIX + "+/+"


def topic_of(driver_id: str, kind: str) -> str:
    """Return one driver's topic."""
    return f"{PREFIX}{driver_id}/{kind}"


def filter_of(kind: str) -> str:
    """Return the filter that matches this topic of every driver."""
    return f"{PREFIX}+/{kind}"
