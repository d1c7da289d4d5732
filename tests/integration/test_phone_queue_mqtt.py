"""OwnTracks' queue over MQTT through outages and restarts, on the running stack.

The seam is the app: a model of its queue. It must end empty, and what the broker has acknowledged
must be in the database. A broker that is killed may lose what it has not saved, so it is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from doorstep.provision import owner_connection
from ops.servers.waiting import wait_until
from ops.stack.phones import give_phone
from ops.stack.stack import Stack
from tests.integration.devices import letter_ends, letters_after, outbox_has_no_letters
from tests.integration.mqtt_phone import MqttPhone, OwnTracksMqtt, location
from tests.integration.test_phone_queues import REASONS, live, stored_of

DRIVER = "queue-mqtt"
LASTS_S = 30.0


def break_things(stack: Stack) -> None:
    """Restart the broker, kill the bridge and driver_events, and take the database away."""
    pause_s = LASTS_S / 6
    time.sleep(pause_s)
    stack.stop_process("mosquitto-1")
    time.sleep(pause_s / 2)
    stack.start_process("mosquitto-1")
    stack.wait_ready()
    time.sleep(pause_s)
    os.kill(stack.pid_of("bridge"), signal.SIGKILL)
    stack.wait_ready()
    stack.stop_process("postgres")
    time.sleep(pause_s)
    stack.start_process("postgres")
    os.kill(stack.pid_of("driver_events"), signal.SIGKILL)
    stack.wait_ready()
    time.sleep(pause_s)
    stack.stop_process("mosquitto-1")
    stack.start_process("mosquitto-1")
    stack.wait_ready()
    time.sleep(pause_s / 2)


def phone_of(stack: Stack, driver_id: str) -> MqttPhone:
    stack.add_drivers([driver_id])
    return MqttPhone(give_phone(stack, driver_id).owntracks_mqtt())


def test_queue__outages_refusals_and_restarts__ends_empty_and_what_was_acknowledged_is_stored(
    stack: Stack,
) -> None:
    app = OwnTracksMqtt(DRIVER, phone_of(stack, DRIVER))
    ends, stopping = letter_ends(stack), threading.Event()
    thread = threading.Thread(target=live, args=(app, stopping))
    thread.start()
    try:
        break_things(stack)
    finally:
        stopping.set()
    thread.join()
    assert not app.queue
    assert len(app.safe) > 100
    assert app.tries > len(app.safe)  # the outages have cost it something
    told = dict.fromkeys({one.lat_deg for one in app.safe if one.kind == "good"}, 1)
    wait_until(lambda: told.items() <= stored_of(stack, [DRIVER])[DRIVER].items())
    assert stored_of(stack, [DRIVER])[DRIVER] == told
    wait_until(lambda: outbox_has_no_letters(stack))
    letters = letters_after(stack, ends).get(DRIVER, [])
    refused = {one.kind for one in app.safe} - {"good", "ignored"}
    allowed = {one for kind in refused for one in REASONS.get(kind, {kind})}
    assert {one.reason for one in letters} <= allowed
    assert letters


@pytest.fixture
def phone(stack: Stack) -> Iterator[MqttPhone]:
    one = phone_of(stack, "modes-mqtt")
    wait_until(lambda: one.is_connected)
    yield one
    one.close()


def command(stack: Stack, name: str) -> None:
    statement = "SELECT doorstep.apply_driver_command_v1('modes-mqtt', %s, 'staff', NULL)"
    with owner_connection(stack.database_admin_url) as conn:
        conn.execute(statement, (name,))


def send(phone: MqttPhone, mode: int) -> None:
    message = location(round(time.time()), 43.77, 11.25, mode)
    assert phone.publish(json.dumps(message).encode())


def modes_of(phone: MqttPhone) -> list[Any]:
    return [one["configuration"]["monitoring"] for one in phone.commands]


def pass_a_minute(stack: Stack, driver_id: str) -> None:
    """The seam is the clock: a mode is sent once a minute at most."""
    with owner_connection(stack.database_admin_url) as conn:
        conn.execute(
            "UPDATE doorstep.phone_credential SET mode_sent_at = mode_sent_at - interval '1 minute'"
            " WHERE driver_id = %s",
            (driver_id,),
        )


def test_duty__changes__sends_the_phone_its_mode_and_a_fix_in_another_mode_does_so_again(
    stack: Stack, phone: MqttPhone
) -> None:
    send(phone, 2)
    command(stack, "on_duty")
    command(stack, "off_duty")
    wait_until(lambda: modes_of(phone) == [1])
    command(stack, "on_duty")
    pass_a_minute(stack, "modes-mqtt")
    wait_until(lambda: modes_of(phone) == [1, 2])
    send(phone, 1)  # it did not set it
    pass_a_minute(stack, "modes-mqtt")
    wait_until(lambda: modes_of(phone) == [1, 2, 2])
    assert phone.commands[0] == {
        "_type": "cmd",
        "action": "setConfiguration",
        "configuration": {"_type": "configuration", "monitoring": 1},
    }
    assert phone.other == []
