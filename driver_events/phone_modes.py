"""Sends OwnTracks over MQTT how to report: `move` on duty, `significant` off duty."""

from __future__ import annotations

import json
from typing import Protocol

from prometheus_client import Counter

from doorstep.mqtt_topics import phone_command_topic_of
from doorstep.phones import mode_command
from doorstep.store.phones import sent_phone_modes, unsent_phone_modes
from driver_events.phone_processor import APP
from driver_events.recorder import Connection

SENT = Counter("doorstep_driver_events_phone_modes", "Commands that set how a phone app reports")
EVERY_S = 1.0
MAX_ROWS = 500


class MessageSender(Protocol):
    """The transport: MQTT, or a fake in unit tests."""

    def send_message(self, driver_id: str, topic: str, payload: bytes) -> bool:
        """Publish with QoS 1, not retained; False if the driver's broker is unreachable."""


class PhoneModePublisher:
    """Sends pending modes. A phone that did not set it says so in its next position."""

    def __init__(self, connection: Connection, sender: MessageSender) -> None:
        self._connection = connection
        self._sender = sender

    def publish(self) -> bool:
        """Send pending modes; True if there may be more. Raises Unavailable.

        The rows are locked, which admits one process for each phone.
        """
        with self._connection.transaction() as conn:
            pending = unsent_phone_modes(conn, APP, MAX_ROWS)
            sent = [
                (driver_id, mode)
                for driver_id, mode in pending
                if self._sender.send_message(
                    driver_id,
                    phone_command_topic_of(driver_id),
                    json.dumps(mode_command(mode)).encode(),
                )
            ]
            if sent:
                sent_phone_modes(conn, sent)
        SENT.inc(len(sent))
        return len(sent) == MAX_ROWS
