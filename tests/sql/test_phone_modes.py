"""How OwnTracks reports, in the database: as duty wants it, sent once a minute at most."""

from __future__ import annotations

from typing import Any

import pytest

from doorstep.phones.owntracks import MOVE, SIGNIFICANT
from doorstep.store.phones import HeardOf, heard_of_phones, sent_phone_modes, unsent_phone_modes
from sql import query
from tests.sql.fleet import Fleet

APP = "OwnTracks over MQTT"


@pytest.fixture
def phone(fleet: Fleet) -> Fleet:
    """d1, on duty, with a phone that was heard of."""
    fleet.add_drivers("d1")
    fleet.run("SELECT * FROM issue_phone_v2('d1', false, 'x', NULL, NULL)")
    hear(fleet, MOVE)
    return fleet


def hear(fleet: Fleet, mode: int | None) -> None:
    heard_of_phones(fleet.conn, [HeardOf("d1", mode, has_position=True)], APP)


def unsent(fleet: Fleet, app: str = APP) -> list[tuple[str, int]]:
    return unsent_phone_modes(fleet.conn, app, 10)


def answer(fleet: Fleet, mode: int | None) -> list[Any]:
    parameters = {
        "driver_ids": ["d1"],
        "modes": [mode],
        "have_positions": [True],
        "app": "OwnTracks over HTTP",
        "can_command": True,
    }
    statement = query("heard_of_phones", "queries/phones.sql")
    return fleet.conn.execute(statement, parameters).fetchall()


def test_duty__ends_and_begins_again__wants_significant_and_then_move(phone: Fleet) -> None:
    assert unsent(phone) == []
    phone.command_driver("d1", "off_duty")
    assert unsent(phone) == [("d1", SIGNIFICANT)]
    assert unsent(phone, "Traccar Client") == []
    sent_phone_modes(phone.conn, [("d1", SIGNIFICANT)])
    assert unsent(phone) == []
    phone.command_driver("d1", "on_duty")
    assert unsent(phone) == []  # within the minute
    phone.run("UPDATE phone_credential SET mode_sent_at = mode_sent_at - interval '61 seconds'")
    assert unsent(phone) == [("d1", MOVE)]
    phone.command_driver("d1", "on_break")
    assert unsent(phone) == [("d1", MOVE)]


def test_fix__in_another_mode__is_answered_with_the_wanted_one_once_a_minute(
    phone: Fleet,
) -> None:
    assert answer(phone, MOVE) == []
    assert answer(phone, SIGNIFICANT) == [("d1", MOVE)]
    assert answer(phone, SIGNIFICANT) == []
    assert answer(phone, None) == []
    phone.run("UPDATE phone_credential SET mode_sent_at = mode_sent_at - interval '61 seconds'")
    assert answer(phone, SIGNIFICANT) == [("d1", MOVE)]
    assert answer(phone, MOVE) == []


@pytest.mark.parametrize(
    ("commands", "wanted"), [((), []), (("on_duty", "off_duty"), [("idle", SIGNIFICANT)])]
)
def test_credential__issued_off_duty__wants_significant_once_duty_has_been_used(
    fleet: Fleet, commands: tuple[str, ...], wanted: list[tuple[str, int]]
) -> None:
    fleet.add_drivers("idle", on_duty=False)
    for command in commands:
        fleet.command_driver("idle", command)
    fleet.run("SELECT * FROM issue_phone_v2('idle', false, 'x', NULL, NULL)")
    heard_of_phones(fleet.conn, [HeardOf("idle", MOVE, has_position=True)], APP)
    assert unsent(fleet) == wanted


def test_revoked__phone__is_sent_nothing(phone: Fleet) -> None:
    phone.command_driver("d1", "off_duty")
    phone.run("SELECT revoke_phone_v1('d1', 'x')")
    assert unsent(phone) == []
    assert answer(phone, MOVE) == []
