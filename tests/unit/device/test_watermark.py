"""The watermark under random failures: a Hypothesis state machine of device and platform.

Steps: fixes written; messages lost before or behind the broker; acks lost, repeated, late,
reordered or of another boot; connections cut; kill -9 at any point; a day without network; a full
journal; a destroyed journal. `Wire` replaces the broker and `Platform` the rest; the journal is the
real one, on disk.

- Always: a fix leaves the journal only if the platform has stored or refused it, or if it was given
  up (no room, or three resends in vain). Given-up fixes are counted.
- Always: no fix is sent more often than connections, ack timeouts and acks explain.
- Once the network works: all fixes are stored or refused within a few periods, and all voids
  are reported.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device import device as device_module
from device.connection import Login
from device.device import Device
from device.journal import Journal
from doorstep.settings import MqttBroker
from tests.unit.device.model_platform import (
    DAY_S,
    HEAL_PERIODS,
    JOURNAL_MAX_FIXES,
    MAX_PARKED,
    MAX_RESENDS,
    PERIOD_S,
    QUIET_HEAL_PERIODS,
    Platform,
    Wire,
)

LOGIN = Login(MqttBroker("127.0.0.1", 1, tls=False), "anna", "secret", "will")


def run(step: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends."""
    try:
        step.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the coroutine suspended")


class UnreliableWorld(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="doorstep-watermark-", dir=fast))
        self.now_s = 1_700_000_000.0
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        self.patches: list[Any] = [
            patch.object(device_module, "Connection", Wire),
            patch.object(device_module, "time", clock),
        ]
        for one in self.patches:
            one.start()
        self.platform = Platform()
        self.broker: list[list[dict[str, Any]]] = []  # at the broker, not yet recorded
        self.acks: list[bytes] = []
        self.written: dict[int, tuple[str, int]] = {}  # durable fixes: number -> identity
        self.destroyed: set[int] = set()  # with their journal
        self.wires: list[Wire] = []
        self.ack_timeouts = self.acks_received = 0
        self.numbers = 0
        self.switch_on()

    # -- the device's process -----------------------------------------------------------------

    def switch_on(self) -> None:
        self.journal = Journal(self.folder / "j.sqlite", JOURNAL_MAX_FIXES)
        self.device = Device(LOGIN, self.journal, PERIOD_S)
        self.wire: Wire | None = None

    def switch_off(self) -> None:
        """kill -9: uncommitted changes are lost."""
        self.journal._db.rollback()
        self.journal._db.close()
        self.journal._lock.close()

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            self.switch_off()
            for one in self.patches:
                one.stop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, count: int, poison: bool) -> dict[int, tuple[str, int]]:
        fresh = {}
        for _ in range(count):
            self.numbers += 1
            self.now_s += 0.5
            fix = {"fix_at": round(self.now_s * 1000), "number": self.numbers}
            seq = self.device.write(fix | ({"poison": True} if poison else {}))
            fresh[self.numbers] = (self.device.boot, seq)
        return fresh

    @rule(count=st.integers(1, 5), poison=st.integers(0, 9).map(lambda n: n == 0))
    def report(self, count: int, poison: bool) -> None:
        fresh = self.write(count, poison)
        self.journal.commit()
        self.written |= fresh
        self.device.pump()

    @rule()
    def killed_before_the_commit(self) -> None:
        self.write(1, poison=False)
        self.killed()

    @rule()
    def killed_between_commit_and_publish(self) -> None:
        fresh = self.write(1, poison=False)
        self.journal.commit()
        self.written |= fresh
        self.killed()

    @rule()
    def killed(self) -> None:
        boot = self.device.boot
        self.switch_off()
        self.switch_on()
        assert self.device.boot == boot, "an intact journal was replaced"

    @rule(how=st.sampled_from(["deleted", "overwritten", "cut", "spoilt"]))
    def journal_destroyed(self, how: str) -> None:
        boot = self.device.boot
        boot_id = self.device._outbox.boot.boot_id
        rows = self.journal.pending_after(boot_id, 0, 1_000_000)
        self.destroyed |= {json.loads(payload)["number"] for _, payload in rows}
        self.destroyed |= {
            number for number, (of, seq) in self.written.items()
            if of == boot and self.journal.is_given_up(boot_id, seq)
        }  # fmt: skip
        self.journal.commit()
        self.switch_off()
        path = self.folder / "j.sqlite"
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if how == "deleted":
            path.unlink()
        elif how == "overwritten":
            path.write_bytes(b"not a journal at all" * 500)
        elif how == "cut":
            path.write_bytes(path.read_bytes()[:5000])
        else:
            path.write_bytes(path.read_bytes()[:100] + b"\xff" * 8000)
        self.switch_on()
        assert self.device.boot != boot

    # -- the network --------------------------------------------------------------------------

    @rule()
    def connect(self) -> None:
        self.cut()
        self.wire = run(self.device._connect())
        self.wires.append(self.wire)

    @rule()
    def cut(self) -> None:
        self.wire = None
        self.device._connection = None
        self.device._in_flight.clear()  # as run() does

    @precondition(lambda self: self.wire and self.wire.positions)
    @rule(count=st.integers(1, 20), lost=st.booleans(), acknowledged=st.booleans())
    def move(self, count: int, lost: bool, acknowledged: bool) -> None:
        """The broker accepts messages, or they are lost, even after its PUBACK."""
        assert self.wire
        taken, self.wire.positions = self.wire.positions[:count], self.wire.positions[count:]
        if not lost:
            self.broker += taken
        if acknowledged:
            self.wire.puback()

    @precondition(lambda self: self.broker)
    @rule(count=st.integers(1, 30), lost=st.integers(0, 4).map(lambda n: n == 0))
    def record(self, count: int, lost: bool) -> None:
        taken, self.broker = self.broker[:count], self.broker[count:]
        for entry in [] if lost else [one for message in taken for one in message]:
            self.platform.take(entry, self.now_s)
        self.write_acks()

    @rule(is_flooded=st.booleans())
    def quota(self, is_flooded: bool) -> None:
        """Other devices on the same quota, such as copies of this phone, come and go."""
        self.platform.is_flooded = is_flooded

    @rule(count=st.integers(1, 3))
    def drain(self, count: int) -> None:
        self.platform.drain(self.now_s, count)
        self.write_acks()

    def write_acks(self) -> None:
        boots = {boot for boot, _ in self.written.values()} | {self.device.boot}
        self.acks += filter(None, map(self.platform.watermark, sorted(boots)))

    @precondition(lambda self: self.wire and self.acks)
    @rule(which=st.integers(0, 50), commits=st.booleans())
    def receive_any_ack(self, which: int, commits: bool) -> None:
        """A new, old, repeated or other boot's ack; the commit may not happen."""
        self.receive(self.acks[-1 - which % len(self.acks)])
        if commits:
            self.journal.commit()

    def receive(self, ack: bytes) -> None:
        """An ack gives up only fixes that were resent three times and are not stored."""
        assert self.wire
        boot, boot_id = self.device.boot, self.device._outbox.boot.boot_id
        already = {
            seq
            for seq in range(1, self.device.last_seq + 1)
            if self.journal.is_given_up(boot_id, seq)
        }
        self.wire.ack(ack)
        self.acks_received += 1
        sends = sum((wire.sends for wire in self.wires), Counter[tuple[str, int]]())
        for seq in range(1, self.device.last_seq + 1):
            if seq not in already and self.journal.is_given_up(boot_id, seq):
                assert sends[boot, seq] > MAX_RESENDS
                assert (boot, seq) not in self.platform.stored
                assert (boot, seq) not in self.platform.parked, "given up while it waited"

    @rule(periods=st.integers(1, 8))
    def time_passes(self, periods: int) -> None:
        for _ in range(periods):
            self.now_s += PERIOD_S + 1
            self.ack_timeouts += 1
            if self.wire:
                self.device._end_hold(self.now_s)
                self.device._report_given_up(self.wire, self.now_s)  # type: ignore[arg-type]
                self.device._check_timeouts(self.wire, self.now_s)  # type: ignore[arg-type]
                if self.wire.lost.is_set():
                    self.cut()

    @rule()
    def a_day_passes(self) -> None:
        self.now_s += DAY_S + 60

    # -- invariants ---------------------------------------------------------------------------

    @invariant()
    def no_fix_is_lost(self) -> None:
        journal, device = self.journal, self.device
        boot_id = device._outbox.boot.boot_id
        held = {
            json.loads(row)["number"] for _, row in journal.pending_after(boot_id, 0, 1_000_000)
        }
        assert len(held) == device.pending <= JOURNAL_MAX_FIXES
        stored = set(self.platform.stored.values())
        given_up = 0
        for number, (boot, seq) in self.written.items():
            if number in held or number in stored or number in self.platform.refused_fixes:
                continue
            if number in self.destroyed or boot != device.boot:
                continue
            assert journal.is_given_up(boot_id, seq), f"fix {number} is lost"
            given_up += 1
        assert given_up <= journal.count_given_up(boot_id) == device.given_up

    @invariant()
    def resends_are_bounded(self) -> None:
        sends = sum((wire.sends for wire in self.wires), Counter[tuple[str, int]]())
        most = max(sends.values(), default=0)
        # A connection or an ack timeout sends all pending fixes once, an ack its missing ones once.
        assert most <= 1 + len(self.wires) + self.ack_timeouts // 3 + self.acks_received

    def heal(self) -> None:
        """From here on the network works. Half of the devices continue, half are quiet."""
        quiet = self.numbers % 2 == 0
        self.platform.is_flooded = False
        self.platform.drain(self.now_s, MAX_PARKED)
        self.write_acks()
        self.connect()
        assert self.wire
        self.move(1_000, lost=True, acknowledged=True)  # the last losses
        before = Counter(self.wire.sends)
        within = QUIET_HEAL_PERIODS if quiet else HEAL_PERIODS
        for _ in range(within):
            if not quiet:
                self.report(1, poison=False)
            self._deliver_all()
            self.time_passes(1)
            if self._deliver_all():  # an ack follows any copy
                payload = self.platform.watermark(self.device.boot)
                if payload:
                    self.receive(payload)
            self.journal.commit()
            self.no_fix_is_lost()
            if self._is_complete(quiet):
                break
        assert self._is_complete(quiet), f"{self.device.pending} pending after {within} periods"
        again = self.wire.sends - before
        assert (
            max(again.values(), default=0) <= 2 + MAX_RESENDS + within // 3
        )  # and each ack timeout
        self._deliver_all()
        self.time_passes(1)
        given_up = self.journal.count_given_up(self.device._outbox.boot.boot_id)
        assert self.wire.statuses[-1].get("given_up", 0) == given_up

    def _deliver_all(self) -> bool:
        assert self.wire
        some = False
        while self.wire.positions or self.wire.waiting or self.broker:
            some = True
            if self.wire.positions or self.wire.waiting:
                self.move(1_000, lost=False, acknowledged=True)
            if self.broker:
                self.record(1_000, lost=False)
        return some

    def _is_complete(self, quiet: bool) -> bool:
        """Whether all fixes are stored or refused.

        Of a quiet device, all up to its newest readable fix: a poisoned fix, or a given-up one, is
        closed only once the platform has a newer one.
        """
        boot, boot_id = self.device.boot, self.device._outbox.boot.boot_id
        rows = self.journal.pending_after(boot_id, 0, 1_000_000)
        pending = [json.loads(payload) for _, payload in rows]
        poisoned = {one["seq"] for one in pending if "poison" in one} if quiet else set()
        known = {seq for of, seq in [*self.platform.stored, *self.platform.refused] if of == boot}
        newest = max(known, default=0) if quiet else self.device.last_seq
        return len(pending) == len(poisoned) and known | poisoned >= set(range(1, newest + 1))


TestWatermark = UnreliableWorld.TestCase
TestWatermark.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
