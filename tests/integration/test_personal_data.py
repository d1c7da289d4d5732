"""`export`, `forget` and `retention`, and positions off duty, on a whole stack."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from doorstep.kafka.access_control import ADMIN
from doorstep.provision import owner_connection
from doorstep.store.compaction import oldest_unread_at
from ops.commands import dead_letters_command, export_command, forget_command, retention_command
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack


class Person:
    """A driver with records in Kafka, seen through the database and the commands."""

    def __init__(self, stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
        self.stack = stack
        self._capsys = capsys
        self.driver_id = f"person-{uuid.uuid4().hex[:12]}"
        stack.add_drivers([self.driver_id])

    def send(self, *seqs: int) -> None:
        """Write records to driver-pos, as the bridge does."""
        kafka = self.stack.kafka_access(ADMIN).as_librdkafka_dict()
        producer = Producer({**kafka, "partitioner": "murmur2_random", "log_level": 0})
        for seq in seqs:
            fix = {"boot": "b1", "seq": seq, "fix_at": round(time.time() * 1000)}
            fix |= {"lat_deg": 43.77, "lon_deg": 11.25}
            producer.produce("driver-pos", json.dumps(fix).encode(), self.driver_id.encode())
        assert producer.flush(20) == 0

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement with the driver's id, as the owner."""
        with owner_connection(self.stack.database_admin_url) as conn:
            return conn.execute(statement, [self.driver_id]).fetchall()

    def seqs(self) -> list[int]:
        stored = "SELECT seq FROM fix_history WHERE driver_id = %s ORDER BY seq"
        return [seq for (seq,) in self.rows(stored)]

    def settled_to(self) -> int:
        found = self.rows("SELECT settled_to FROM boot_seqs WHERE driver_id = %s")
        return found[0][0] if found else 0

    def command_duty(self, command: str) -> None:
        with owner_connection(self.stack.database_admin_url) as conn:
            conn.execute(
                "SELECT apply_driver_command_v1(%s, %s, 'driver', NULL)",
                [self.driver_id, command],
            )
            conn.commit()

    def said(self, main: Callable[[list[str]], int], *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit status and what it printed."""
        self._capsys.readouterr()
        status = main(list(arguments))
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def letters(self) -> list[dict[str, object]]:
        arguments = ("list", "--driver", self.driver_id, "--json")
        found: list[dict[str, object]] = json.loads(
            self.said(dead_letters_command.main, *arguments)[1]
        )
        return found


@pytest.fixture
def person(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Person:
    for name, value in stack.operator_environment().items():
        monkeypatch.setenv(name, value)
    return Person(stack, capsys)


def test_forget_driver__on_a_running_stack__later_records_are_stored_nowhere(
    person: Person, tmp_path: Path
) -> None:
    person.send(1, 2)
    wait_until(lambda: person.seqs() == [1, 2], 60, "two fixes")
    target = tmp_path / "person.json"
    assert person.said(export_command.main, "driver", person.driver_id, "--to", str(target))[0] == 0
    exported = json.loads(target.read_text())
    assert [row["seq"] for row in exported["tables"]["fix_history"]] == [1, 2]
    assert target.stat().st_mode & 0o077 == 0

    status, text = person.said(forget_command.main, "driver", person.driver_id)
    assert status == 0
    assert "fix_history: 2 deleted" in text
    assert "Kafka driver-pos: may hold records until" in text

    person.send(1, 2, 3)  # a replay, and a device that was not cut yet
    wait_until(lambda: _is_read(person), 60, "the records are read")
    assert person.seqs() == []
    assert person.rows("SELECT 1 FROM driver WHERE driver_id = %s") == []
    assert person.letters() == []
    actions = person.rows("SELECT action FROM audit WHERE subject = %s ORDER BY audit_id")
    assert [action for (action,) in actions][-2:] == ["driver.export", "driver.forget"]


def _is_read(person: Person) -> bool:
    """Say whether driver_events has read all records of driver-pos."""
    with owner_connection(person.stack.database_admin_url) as conn:
        kafka = person.stack.kafka_access(ADMIN)
        return oldest_unread_at(conn, kafka, "driver-pos") is None


def test_forget__unknown_or_with_an_open_order__is_one_line(person: Person) -> None:
    assert person.said(forget_command.main, "driver", "unknown-driver") == (
        2,
        "forget: there is no driver unknown-driver\n",
    )
    assert person.said(forget_command.main, "order", "no-order") == (
        2,
        "forget: 'no-order' is not an order's id\n",
    )
    assert person.said(export_command.main, "order", str(uuid.UUID(int=1)))[0] == 2


def test_positions_off_duty__on_a_running_stack__are_settled_and_kept_nowhere(
    person: Person,
) -> None:
    person.command_duty("on_duty")
    person.send(1)
    wait_until(lambda: person.seqs() == [1], 60, "a fix on duty")
    person.command_duty("off_duty")
    person.send(2, 3)
    wait_until(lambda: person.settled_to() == 3, 60, "three settled seqs")
    assert person.seqs() == [1]
    assert person.letters() == []


def test_retention__printed_and_refused__says_the_days(person: Person) -> None:
    status, text = person.said(retention_command.main)
    assert status == 0
    assert "orders       90 days" in text
    assert person.said(retention_command.main, "audit", "1") == (
        2,
        "retention: audit is kept for 30 to 36,500 days\n",
    )
