"""One set of cases for the reference device and for the courier's page (tests/device_cases).

The platform is replaced here: it keeps what it received by (boot, seq), and answers. The page's
device runs in Node, its journal in memory; tests/browser/test_drive.py has the real one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from device import device as device_module
from device.connection import Login
from device.device import Device
from device.journal import Journal
from device.sampling import Sampler
from doorstep.sampling import SamplingPolicy
from doorstep.settings import MqttBroker
from tests.unit.device.fake_connection import FakeConnection

FOLDER = Path(__file__).parents[2] / "device_cases"
CASES = json.loads((FOLDER / "cases.json").read_text("utf-8"))
START_S = 1_700_000_000
LOGIN = Login(MqttBroker("127.0.0.1", 1, tls=False), "anna", "secret", "will")

Observation = dict[str, Any]


class Platform:
    """What the platform received, and its acks."""

    def __init__(self, reject: list[int]) -> None:
        self.stored: dict[tuple[str, int], int] = {}
        self.sent: list[list[int]] = []
        self._settled: dict[str, set[int]] = {}
        self._reject = reject

    def receive(self, payload: Any) -> None:
        fixes = payload if isinstance(payload, list) else [payload]
        self.sent.append([fix["seq"] for fix in fixes if not fix.get("void")])
        self.sent = [seqs for seqs in self.sent if seqs]
        for fix in fixes:
            self._settled.setdefault(fix["boot"], set()).add(fix["seq"])
            if not fix.get("void") and fix["altitude_m"] not in self._reject:
                self.stored.setdefault((fix["boot"], fix["seq"]), fix["altitude_m"])

    def ack(self, boot: str) -> tuple[str, int, list[list[int]]] | None:
        settled = self._settled.get(boot)
        if not settled:
            return None
        missing = [[seq, seq] for seq in range(1, max(settled)) if seq not in settled]
        return boot, max(settled), missing


class ReferenceWorld:
    """The reference device, its journal and the platform, driven by the steps of a case."""

    def __init__(self, case: dict[str, Any], folder: Path) -> None:
        self.platform = Platform(case.get("reject", []))
        self._max_fixes = case.get("max_fixes")
        self._folder = folder
        self._network = "down"
        self._connection: FakeConnection | None = None
        self._delivered = 0  # of the connection's messages
        self._written = 0
        self._open()

    def _open(self) -> None:
        limit = {"max_fixes": self._max_fixes} if self._max_fixes else {}
        self.journal = Journal(self._folder / "journal.sqlite", **limit)
        self.device = Device(LOGIN, self.journal)

    async def step(self, step: dict[str, Any]) -> None:
        [(name, value)] = step.items()
        match name:
            case "fix":
                for _ in range(value):
                    self._written += 1
                    self.device.write({"fix_at": self._written * 1000, "altitude_m": self._written})
                    self.journal.commit()
                    self.device.pump()
                    self._deliver()
            case "network":
                await self._set_network(value)
            case "restart":
                self.journal.close()
                self._open()
            case "backup":
                self.journal.close()
                shutil.copy(self._folder / "journal.sqlite", self._folder / "backup.sqlite")
                self._open()
            case "restore":
                self.journal.close()
                shutil.copy(self._folder / "backup.sqlite", self._folder / "journal.sqlite")
                self._open()

    async def _set_network(self, network: str) -> None:
        self._network = network
        if self._connection is not None:  # as Device.run does
            self.device._connection = self._connection = None
            self.device._in_flight.clear()
        if network != "down":
            connection = await self.device._connect()
            assert isinstance(connection, FakeConnection)
            self._connection, self._delivered = connection, 0
            self._deliver()

    def _deliver(self) -> None:
        """Deliver messages and their acks until none is under way."""
        connection = self._connection
        while connection is not None and self._delivered < len(connection.sent):
            messages = connection.sent[self._delivered :]
            self._delivered += len(messages)
            for message_id, leaf, payload in messages:
                if leaf == "position":
                    self.platform.receive(payload)
                if self._network == "up":
                    connection.puback(message_id)
            ack = self.platform.ack(self.device.boot)
            if ack is not None and self._network == "up":
                connection.ack(*ack)

    def observe(self) -> Observation:
        boot_id = self.device._outbox.boot.boot_id
        sent, self.platform.sent = self.platform.sent, []
        return {
            "sent": sent,
            "pending": [seq for seq, _ in self.journal.pending_after(boot_id, 0, 10_000)],
            "count": self.device.pending,
            "given_up": self.device.given_up,
            "has": sorted(self.platform.stored.values()),
            "boots": len({boot for boot, _ in self.platform.stored}),
        }


@cache
def page_observations() -> dict[str, list[Observation]]:
    done = subprocess.run(
        ["node", FOLDER / "run_page_device.mjs"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    observed: dict[str, list[Observation]] = json.loads(done.stdout)
    return observed


async def reference_observations(case: dict[str, Any], folder: Path) -> list[Observation]:
    world = ReferenceWorld(case, folder)
    observed = []
    for step in [*case["steps"], {"claims": case["claims"]}]:
        if "claims" in step:
            observed.append(world.observe())
        else:
            await world.step(step)
    world.journal.close()
    return observed


def unmet(claims: dict[str, Any], observed: Observation) -> dict[str, Any]:
    """The claims that do not hold, with what was observed."""
    seen = {
        **observed,
        "sent_sizes": [len(seqs) for seqs in observed["sent"]],
        "has_count": len(observed["has"]),
    }
    found = {name: seen[name] for name, claim in claims.items() if seen[name] != claim}
    if observed["count"] != len(observed["pending"]):
        found["count"] = observed["count"]
    return found


def claims_of(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(step["claims"] for step in case["steps"] if "claims" in step), case["claims"]]


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
async def test_reference_device__case__does_what_is_claimed(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "Connection", FakeConnection)
    observed = await reference_observations(case, tmp_path)
    assert [unmet(*pair) for pair in zip(claims_of(case), observed, strict=True)] == [
        {} for _ in observed
    ]


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_page_device__case__does_what_is_claimed(case: dict[str, Any]) -> None:
    observed = page_observations()[case["name"]]
    assert [unmet(*pair) for pair in zip(claims_of(case), observed, strict=True)] == [
        {} for _ in observed
    ]


@pytest.mark.parametrize("case", CASES["sampling"], ids=lambda case: case["name"])
def test_samplers__case__send_the_same_fixes(case: dict[str, Any]) -> None:
    sampler = Sampler(SamplingPolicy(**case["policy"]))
    fixes = [
        {"fix_at": (START_S + at) * 1000, "lat_deg": 43.77, "lon_deg": 11.25} for at in case["at_s"]
    ]
    sent = [one["fix_at"] / 1000 - START_S for fix in fixes for one in sampler.observe(fix)]
    assert sent == case["sent_at_s"]
    assert page_observations()[f"sampling: {case['name']}"] == case["sent_at_s"]
