"""`where`, `dead-letters` and `compact` on a whole stack."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from doorstep.kafka.access_control import ADMIN
from doorstep.kafka.topic_reader import TopicReader
from doorstep.kafka.topic_specs import Topic, create_topics
from doorstep.provision import owner_connection
from doorstep.store.compaction import oldest_unread_at
from ops.commands import compact_command, dead_letters_command, trace_command
from ops.commands.dead_letter_reader import time_text
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack

DAY_MS = 86_400_000


class Operator:
    """Runs the commands in this process, with the environment that `./run` sets."""

    def __init__(
        self, stack: Stack, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> None:
        self.stack = stack
        self.kafka = stack.kafka_access(ADMIN)
        self._capsys = capsys
        for name, value in stack.operator_environment().items():
            patch.setenv(name, value)
        self.driver_id = f"op-{uuid.uuid4().hex[:12]}"
        stack.add_drivers([self.driver_id])

    def send(self, payload: bytes) -> None:
        """Write a record to driver-pos, as the bridge does."""
        producer = Producer(
            {**self.kafka.as_librdkafka_dict(), "partitioner": "murmur2_random", "log_level": 0}
        )
        producer.produce("driver-pos", payload, self.driver_id.encode())
        assert producer.flush(20) == 0

    def where(self, seq: int, *more: str) -> dict[str, object]:
        """Trace a fix of its driver."""
        self._capsys.readouterr()
        trace_command.main([self.driver_id, str(seq), "--json", *more])
        answer: dict[str, object] = json.loads(self._capsys.readouterr().out)
        return answer

    def await_word(self, seq: int, word: str) -> dict[str, object]:
        wait_until(lambda: self.where(seq)["verdict"] == word, 60, f"{seq} is {word}")
        return self.where(seq)

    def letters(self, *arguments: str) -> list[dict[str, object]]:
        self._capsys.readouterr()
        dead_letters_command.main([*arguments, "--json"])
        answer: list[dict[str, object]] = json.loads(self._capsys.readouterr().out)
        return answer

    def own_letters(self, count: int) -> list[dict[str, object]]:
        """Return its driver's dead letters, newest first."""
        ask = ("list", "--driver", self.driver_id)
        wait_until(lambda: len(self.letters(*ask)) >= count, 60, f"{count} letters")
        found = self.letters(*ask)
        assert len(found) == count
        return found

    def text(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = dead_letters_command.main(list(arguments))
        said = self._capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture
def operator(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    return Operator(stack, capsys, monkeypatch)


def now_ms() -> int:
    return round(time.time() * 1000)


def fix(seq: int, **members: object) -> bytes:
    return json.dumps(
        {"boot": "b1", "seq": seq, "fix_at": now_ms(), "lat_deg": 43.77, "lon_deg": 11.25} | members
    ).encode()


def test_where__committed_refused_quarantined_or_unknown__has_its_outcome(
    operator: Operator,
) -> None:
    operator.send(fix(1))
    operator.send(b"[" + fix(2, lat_deg=91) + b"," + fix(3, lat_deg=0, lon_deg=0) + b"]")
    operator.await_word(3, "committed")

    committed = operator.where(1)
    assert committed["acknowledged"] is True
    assert len(committed["records"]) == 1  # type: ignore[arg-type]
    assert "after it was due" in str(committed["sentence"])
    [letter] = operator.own_letters(1)
    refused = operator.await_word(2, "refused")
    assert refused["dead_letters"] == [{"id": letter["id"], "reason": "latitude_out_of_range"}]
    assert f"latitude_out_of_range; dead letter {letter['id']}" in str(refused["sentence"])
    assert operator.where(3)["quarantine"] == "null_island"
    assert operator.where(3)["dead_letters"] == []
    assert operator.where(4)["verdict"] == "unknown"
    assert operator.where(1, "--boot", "b2")["verdict"] == "unknown"


def test_where__a_fix_not_consumed_yet__is_waiting(operator: Operator) -> None:
    pid = operator.stack.pid_of("driver_events")
    os.kill(pid, signal.SIGSTOP)
    try:
        operator.send(fix(1))
        waiting = operator.where(1)
        assert (waiting["verdict"], waiting["boot"]) == ("waiting", "b1")
    finally:
        os.kill(pid, signal.SIGCONT)
    operator.await_word(1, "committed")


def test_where__an_unknown_driver__is_one_error_line(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace_command.main(["not-registered", "1"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == ["where: no driver is named 'not-registered': ./run drivers lists them"]


def test_list_and_show__any_bytes__are_complete_without_control_characters(
    operator: Operator,
) -> None:
    operator.send(b"\x1b[31m\xff")
    operator.send("{☃ \x1b[2J".encode())
    newest, oldest = operator.own_letters(2)
    assert (newest["reason"], oldest["reason"]) == ("not_json", "not_utf8")
    assert oldest["payload_hex"] == b"\x1b[31m\xff".hex()
    assert newest["payload"] == "{☃ \x1b[2J"
    status, text, _ = operator.text("--driver", operator.driver_id, "--reason", "not_json")
    assert status == 0
    assert "\x1b" not in text
    assert str(newest["id"]) in text
    assert str(oldest["id"]) not in text
    status, text, _ = operator.text("show", str(oldest["id"]), str(newest["id"]))
    assert status == 0
    assert b"\x1b[31m\xff".hex() in text
    assert "{☃ \\x1b[2J" in text


def test_resend__corrected_payload__is_committed_with_its_first_arrival(
    operator: Operator,
) -> None:
    operator.send(b"{half a fix")
    [letter] = operator.own_letters(1)
    path = operator.stack.paths.root / f"{operator.driver_id}.json"
    path.write_bytes(fix(1, fix_at=now_ms() - 60_000))
    [done] = operator.letters("resend", str(letter["id"]), "--yes", "--payload", str(path))
    assert done["outcomes"] == {"committed": 1}
    assert operator.where(1)["verdict"] == "committed"
    with owner_connection(operator.stack.database_admin_url) as conn:
        row = conn.execute(
            "SELECT received_at FROM doorstep.fix_history WHERE driver_id = %s",
            (operator.driver_id,),
        ).fetchone()
    assert row is not None
    assert time_text(round(row[0].timestamp() * 1000)) == letter["received_at"]


def test_resend__too_old_at_arrival__is_refused_again(operator: Operator) -> None:
    operator.send(fix(1, fix_at=now_ms() - DAY_MS - 60_000))
    [letter] = operator.own_letters(1)
    assert letter["reason"] == "too_old"
    [done] = operator.letters("resend", str(letter["id"]), "--yes")
    assert (done["outcomes"], done["refused_again"]) == ({}, ["rejected_before"])
    assert operator.where(1)["verdict"] == "refused"


def test_resend__by_reason__reports_the_outcome_of_each(
    operator: Operator,
) -> None:
    payloads = [b"hello", b"[" + fix(1) + b"," + fix(2, lat_deg="x") + b"]", b""]
    for payload in payloads:
        operator.send(payload)
    operator.own_letters(3)
    chosen = ("--driver", operator.driver_id, "--since", "1h", "--yes")
    done = operator.letters("resend", "--reason", "not_json", "--reason", "wrong_type", *chosen)
    by_reason = {str(one["id"]): one for one in done}
    letters = {str(one["id"]): one for one in operator.own_letters(3)}
    assert {letters[name]["reason"] for name in by_reason} == {"not_json", "wrong_type"}
    told = {letters[name]["reason"]: one for name, one in by_reason.items()}
    assert told["wrong_type"]["outcomes"] == {"duplicate": 1}
    assert told["wrong_type"]["refused_again"] == ["wrong_type"]
    assert told["not_json"]["refused_again"] == ["not_json"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("resend",), 2, "which letters?"),
        (("resend", "0:0", "--reason", "x"), 2, "not both"),
        (("resend", "1:999999999", "--yes"), 2, "there is no dead letter 1:999999999"),
        (("show", "'; DROP TABLE orders;--"), 2, "is not a dead letter's id"),
        (("--since", "yesterday"), 2, "'yesterday' is neither"),
        (("resend", "--reason", "never_heard_of"), 0, ""),
    ],
)
def test_dead_letters__bad_arguments__are_one_error_line(
    operator: Operator, arguments: tuple[str, ...], status: int, said: str
) -> None:
    got, _, errors = operator.text(*arguments)
    assert (got, said in errors, "Traceback" in errors) == (status, True, False)


def test_commands__after_their_end__leave_no_consumer_group(operator: Operator) -> None:
    operator.letters("list")
    admin = AdminClient(operator.kafka.as_librdkafka_dict())
    groups = {one.group_id for one in admin.list_consumer_groups().result(20).valid}
    assert "driver-events" in groups
    assert "doorstep-operate" not in groups


def test_oldest_unread__unread_records__is_the_oldest_arrival(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = f"unread-{uuid.uuid4().hex[:8]}"
    create_topics(operator.kafka, topics=[Topic(topic, 3, DAY_MS)])
    arrived_ms = now_ms() - 5_000
    producer = Producer({**operator.kafka.as_librdkafka_dict(), "log_level": 0})
    for later_ms in (900, 0, 300):
        producer.produce(topic, b"x", partition=later_ms % 7 % 3, timestamp=arrived_ms + later_ms)
    assert producer.flush(30) == 0
    with owner_connection(operator.stack.database_admin_url) as conn:
        oldest = oldest_unread_at(conn, operator.kafka, topic)
        assert oldest == datetime.fromtimestamp(arrived_ms / 1000, UTC)
        with TopicReader(operator.kafka, topic) as reader:
            for partition, (_low, high) in reader.bounds().items():
                read = (*reader.identify(), partition, high)
                conn.execute("INSERT INTO doorstep.kafka_offset VALUES (%s, %s, %s, %s)", read)
        assert oldest_unread_at(conn, operator.kafka, topic) is None
    capsys.readouterr()
    assert compact_command.main(["--dry-run", "--json"]) == 0  # of the new stack
    assert json.loads(capsys.readouterr().out)["would_pack"] == {}
