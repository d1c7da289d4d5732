"""The MQTT topics.

doorstep/v1/drivers/{driver_id}/{position|status|ack|command}
doorstep/v1/series/{source_id}/{measure}
owntracks/{driver_id}/phone[/cmd]
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


PHONE_PREFIX = "owntracks/"
PHONE_FILTER = PHONE_PREFIX + "+/+"
PHONE_DEVICE = "phone"  # one name for all, so that the broker retains one message for each driver


def phone_topic_of(driver_id: str) -> str:
    """Return the topic of a driver's phone app."""
    return f"{PHONE_PREFIX}{driver_id}/{PHONE_DEVICE}"


def phone_command_topic_of(driver_id: str) -> str:
    """Return the topic of commands to a driver's phone app."""
    return f"{phone_topic_of(driver_id)}/cmd"


def phone_acl(username: str, driver_id: str) -> str:
    """Return a phone's paragraph of the ACL: its own topic, and none of the devices'."""
    own = f"topic write {phone_topic_of(driver_id)}\ntopic read {phone_command_topic_of(driver_id)}"
    return f"\nuser {username}\ntopic deny doorstep/#\n{own}"


def filter_of(kind: str) -> str:
    """Return the filter that matches this topic of every driver."""
    return f"{PREFIX}+/{kind}"
