"""Generated messages through the whole path: each is stored, rejected or a dead letter.

FUZZ_CASES sets how many; a release sends 10,000. A good fix goes before and after each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from doorstep.errors import MalformedFix
from doorstep.fix import MAX_PAYLOAD_BYTES, Decoded, decode_position
from doorstep.mqtt_topics import POSITION, topic_of
from doorstep.provision import owner_connection
from ops.commands.dead_letter_reader import StoredDeadLetter
from ops.servers.waiting import poll_until
from ops.stack.stack import Stack
from tests.fuzz.payloads import CASES, good_fix, payloads
from tests.integration.devices import (
    Device,
    Samples,
    connect_all,
    history_of,
    letter_ends,
    letters_after,
    outbox_has_no_letters,
    scrape,
)
from tests.integration.seq_states import Identity, Known, read_known

T = TypeVar("T")

DEVICES = 16
HOSTILE = "fuzz-hostile"
PATIENCE_S = 60 + CASES / 20
PARTS = ("mosquitto-1", "kafka", "bridge", "driver_events", "driver_api", "tracking_api")


def drawn(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    """Return `count` examples of a strategy, different each time."""
    found: list[T] = []

    @settings(
        max_examples=count,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found


LEVELS = ["doorstep", "v1", "drivers", HOSTILE, "fuzz-0", "fuzz-1", "position", "ack", "", "$SYS"]
foreign_topics = st.one_of(
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=7).map("/".join),
    st.sampled_from(["fuzz-0", "fuzz-1", "", "FUZZ-0"]).map(lambda one: topic_of(one, POSITION)),
    st.text(st.characters(codec="utf-8", exclude_characters="+#"), min_size=1, max_size=9),
).filter(lambda topic: topic not in ("", topic_of(HOSTILE, POSITION), topic_of(HOSTILE, "status")))
"""Topics of others: the broker refuses them, or ends the connection."""


@dataclass
class Sent:
    """What every device sent, and the results."""

    devices: dict[str, Device]
    pids: dict[str, int]
    bad: dict[str, list[bytes]] = field(default_factory=dict)  # on the device's position topic
    good: dict[str, int] = field(default_factory=dict)
    elsewhere: int = 0  # junk on the device's status topic
    letters: dict[str, list[StoredDeadLetter]] = field(default_factory=dict)
    history: dict[str, dict[int, str | None]] = field(default_factory=dict)
    known: dict[Identity, Known] = field(default_factory=dict)
    before: Samples = field(default_factory=Samples)
    after: Samples = field(default_factory=Samples)


def decoded(payload: bytes) -> Decoded | str:
    try:
        return decode_position(payload)
    except MalformedFix as exc:
        return exc.reason


@pytest.fixture(scope="module")
def sent(stack: Stack) -> Iterator[Sent]:
    names = [*(f"fuzz-{n}" for n in range(DEVICES)), HOSTILE]
    stack.add_drivers(names)
    what = Sent(connect_all(stack, names), {part: stack.pid_of(part) for part in PARTS})
    ends = letter_ends(stack)
    what.before = scrape(stack.addresses.bridge)
    for name in names:
        what.good[name] = 0
        what.bad[name] = []
    for n, payload in enumerate(drawn(payloads, CASES)):
        name = names[n % DEVICES]
        send_good(what, name)
        if len(payload) > MAX_PAYLOAD_BYTES:
            continue
        if n % 10:
            what.bad[name].append(payload)
            what.devices[name].publish(payload)
        else:
            what.elsewhere += 1
            what.devices[name].publish(payload, "status")
    publish_forged(what.devices[HOSTILE])
    for name in names:
        send_good(what, name)
    for device in what.devices.values():
        poll_until(lambda device=device: device.is_answered, PATIENCE_S)  # type: ignore[misc]
    poll_until(lambda: _is_processed(stack, what), PATIENCE_S)
    poll_until(lambda: outbox_has_no_letters(stack), PATIENCE_S)
    what.after = scrape(stack.addresses.bridge)
    what.letters = letters_after(stack, ends)
    what.history = history_of(stack, names)
    with owner_connection(stack.database_admin_url) as conn:
        what.known = read_known(conn, identities(what))
    yield what
    for device in what.devices.values():
        device.close()


def publish_forged(device: Device) -> None:
    """Publish forged good fixes on topics of others, some of which end the connection."""
    for n, topic in enumerate(drawn(foreign_topics, CASES // 4), start=1):
        forged = good_fix(n, boot="forged").encode()
        try:
            device.client.publish(topic, forged, 0)  # QoS 1 would resend it for ever
        except ValueError:
            continue  # refused by paho
    poll_until(device.client.is_connected)


def send_good(what: Sent, name: str) -> None:
    what.good[name] += 1
    what.devices[name].publish(good_fix(what.good[name]).encode())


def _is_processed(stack: Stack, what: Sent) -> bool:
    """Say whether the last message of every device is processed, and so all before it."""
    with owner_connection(stack.database_admin_url) as conn:
        last = [(name, "good", seq) for name, seq in what.good.items()]
        return all(one.recorded_at is not None for one in read_known(conn, last).values())


def identities(what: Sent) -> set[Identity]:
    """Return the identities of all that was sent with a readable one."""
    found: set[Identity] = set()
    for name, bad in what.bad.items():
        found |= {(name, "good", seq) for seq in range(1, what.good[name] + 1)}
        for payload in bad:
            entries = decoded(payload)
            if not isinstance(entries, str):
                found |= {(name, one.boot, one.seq) for one in entries if one.boot and one.seq}
    return found


def test_fuzz_pipe__every_good_fix__is_stored(sent: Sent) -> None:
    lost = [
        identity
        for identity, known in sent.known.items()
        if identity[1] == "good" and identity[2] <= sent.good[identity[0]]
        if known.recorded_at is None
    ]
    assert lost == []


def test_fuzz_pipe__every_identity__is_stored_or_rejected(sent: Sent) -> None:
    unsettled = [
        identity
        for identity, known in sent.known.items()
        if not known.is_stored and not known.is_rejected
    ]
    assert unsettled == []
    assert not [one for one, known in sent.known.items() if known.is_stored and known.is_rejected]


def test_fuzz_pipe__every_unreadable_message__is_one_dead_letter_with_its_reason(
    sent: Sent,
) -> None:
    for name, bad in sent.bad.items():
        wanted = Counter(
            (payload, reason) for payload in bad if isinstance(reason := decoded(payload), str)
        )
        found = Counter((letter.payload, letter.reason) for letter in sent.letters.get(name, []))
        assert {key: found[key] for key in wanted} == dict(wanted)
        assert {payload for payload, _ in found} <= set(bad)


def test_fuzz_pipe__history__holds_only_what_was_sent(sent: Sent, stack: Stack) -> None:
    with owner_connection(stack.database_admin_url) as conn:
        rows = conn.execute(
            "SELECT driver_id, boot, seq FROM doorstep.fix_history WHERE driver_id = ANY(%s)",
            (list(sent.good),),
        ).fetchall()
    assert {tuple(row) for row in rows} <= set(sent.known)


def test_fuzz_pipe__forged_fixes__are_not_delivered(sent: Sent) -> None:
    forged = [
        letter.payload
        for letters in sent.letters.values()
        for letter in letters
        if b"forged" in letter.payload
    ]
    assert forged == []
    assert list(sent.history[HOSTILE]) == [1]  # its own good fix, sent last


def test_fuzz_pipe__each_message__passes_the_bridge_once_and_no_process_restarts(
    sent: Sent, stack: Stack
) -> None:
    def grown(name: str, labels: str = "") -> float:
        return sent.after[name, labels] - sent.before[name, labels]

    positions = sum(map(len, sent.bad.values())) + sum(sent.good.values())
    assert grown("doorstep_bridge_messages_total", 'topic="position"') == positions
    assert grown("doorstep_bridge_acked_total") == positions + sent.elsewhere
    assert grown("doorstep_bridge_poison_total") == 0
    assert {part: stack.pid_of(part) for part in PARTS} == sent.pids
