"""The native stack as a whole: readiness, killed processes, changes, stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from doorstep.credentials import mqtt_password
from ops.servers.waiting import wait_until
from ops.stack import probes
from ops.stack.pids import process_exists
from ops.stack.processes import SERVICES
from ops.stack.settings import FREE_PORTS, PROJECT, StackSettings
from ops.stack.stack import Stack
from ops.stack.supervisor import SUPERVISOR_GUARD

PROCESSES = [
    "supervisor",
    "postgres",
    "kafka",
    "mosquitto-1",
    "broker_sync",
    "bridge",
    "driver_events",
    "driver_api",
    "tracking_api",
    "webhooks",
]
READY_AGAIN_S = 60.0


def test_status__all_up__each_process_has_an_address_a_pid_and_is_ready(stack: Stack) -> None:
    states = stack.status()

    assert [one.name for one in states] == PROCESSES
    assert all(one.ready and one.pid > 0 and one.address for one in states)
    assert len({one.pid for one in states}) == len(PROCESSES)


def test_status_command__json__lists_the_same_processes(stack: Stack) -> None:
    done = _run(stack, "status", "--json")

    assert done.returncode == 0
    assert [one["part"] for one in json.loads(done.stdout)] == PROCESSES
    assert all(set(one) >= {"part", "address", "pid", "ready"} for one in json.loads(done.stdout))


def test_services__all_up__answer_health_and_metrics(stack: Stack) -> None:
    for service in SERVICES:
        public, telemetry = getattr(stack.addresses, service), stack.addresses.telemetry_of(service)
        for url in (f"{public}/healthz", f"{public}/readyz", f"{telemetry}/metrics"):
            with urllib.request.urlopen(f"http://{url}", timeout=5) as response:
                assert response.status == 200, url


@pytest.mark.parametrize("killed", PROCESSES)
def test_kill_9__any_one_process__all_ready_again(stack: Stack, killed: str) -> None:
    before = stack.pid_of(killed)
    others = {name: stack.pid_of(name) for name in PROCESSES if name not in (killed, "supervisor")}
    os.kill(before, signal.SIGKILL)

    wait_until(
        lambda: _pid(stack, killed) not in (0, before), READY_AGAIN_S, f"{killed} is restarted"
    )
    stack.wait_ready(READY_AGAIN_S)

    if killed == "supervisor":  # its children end with it, so that none runs twice
        assert all(not process_exists(pid) for pid in others.values())
    else:
        assert {name: stack.pid_of(name) for name in others} == others


def test_kill_9__the_supervisor_guard__restarts_and_still_guards(stack: Stack) -> None:
    before = stack.pid_of(SUPERVISOR_GUARD)
    os.kill(before, signal.SIGKILL)
    wait_until(
        lambda: _pid(stack, SUPERVISOR_GUARD) not in (0, before), 15, "the guard is restarted"
    )

    supervisor = stack.pid_of("supervisor")
    os.kill(supervisor, signal.SIGKILL)
    wait_until(
        lambda: _pid(stack, "supervisor") not in (0, supervisor), 15, "supervisord is restarted"
    )
    stack.wait_ready(READY_AGAIN_S)


def test_servers__started_by_root__run_as_users_of_their_own(stack: Stack) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can switch users")
    for name in ("postgres", "mosquitto-1"):
        assert Path(f"/proc/{stack.pid_of(name)}").stat().st_uid != 0


def test_secrets__running_stack__are_not_in_logs_or_command_lines(stack: Stack) -> None:
    secrets = [
        stack.paths.fleet_key_file.read_text().strip(),
        stack.paths.staff_token(),
        *(path.read_text().strip() for path in (stack.paths.secrets / "database").iterdir()),
        stack.paths.mqtt_password("bridge"),
    ]
    texts = [path.read_text(errors="replace") for path in stack.paths.logs.iterdir()]
    texts += [Path(f"/proc/{one.pid}/cmdline").read_text() for one in stack.status()]

    assert not [secret for secret in secrets for text in texts if secret in text]


def test_add_drivers__new_ids__are_accepted_by_the_broker_at_once(stack: Stack) -> None:
    stack.add_drivers(["stack-anna", "stack-bruno"])

    key = stack.paths.fleet_key()
    for driver_id in ("stack-anna", "stack-bruno"):
        password = mqtt_password(key, driver_id)
        assert probes.mqtt_accepts(stack.addresses.mqtt[0], driver_id, password)
    assert "stack-anna" in _run(stack, "drivers").stdout.split()


def test_drivers_add__bad_id__is_one_error_line(stack: Stack) -> None:
    done = _run(stack, "drivers", "add", "a/b")

    assert done.returncode != 0
    assert done.stderr.splitlines() == [
        "run: 'a/b' can't be a driver's id: 1 to 64 letters, digits, _ or -"
    ]


def test_up__already_up__starts_nothing(stack: Stack) -> None:
    pids = {name: stack.pid_of(name) for name in PROCESSES}
    stack.up()

    assert {name: stack.pid_of(name) for name in PROCESSES} == pids


def test_logs__of_one_part__are_its_own(stack: Stack) -> None:
    done = _run(stack, "logs", "postgres", "-n", "1000")

    assert "database system is ready to accept connections" in done.stdout
    assert _run(stack, "logs", "nonsense").returncode == 2


def test_bad_setting__any_command__is_one_error_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops", "status"],
        env=os.environ | {"MQTT_PORT": "many"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    assert "MQTT_PORT" in done.stderr


@pytest.fixture
def another_stack(server_home: Path) -> Stack:
    """A second stack, for tests that would break the shared one."""
    return Stack(
        StackSettings(doorstep_home=server_home / "another", mqtt_brokers=2, **FREE_PORTS),
        echo=lambda _: None,
    )


def test_down__leaves_no_process_and_keeps_the_data__erase_removes_all(
    another_stack: Stack,
) -> None:
    try:
        another_stack.up()
        another_stack.add_drivers(["keeps"])
        pids = [
            another_stack.pid_of(name) for name in [*PROCESSES, "mosquitto-2", SUPERVISOR_GUARD]
        ]
        another_stack.down()

        assert not [pid for pid in pids if process_exists(pid)]
        assert another_stack.status() == []

        another_stack.up()
        key = another_stack.paths.fleet_key()
        for broker in another_stack.addresses.mqtt:
            assert probes.mqtt_accepts(broker, "keeps", mqtt_password(key, "keeps"))
    finally:
        another_stack.down(erase=True)
    assert not another_stack.paths.root.exists()


def test_everything_killed_at_once__up_again__and_the_owner_killed__ends_by_itself(
    another_stack: Stack,
) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    try:
        another_stack.up(owner_pid=owner.pid)
        another_stack.add_drivers(["survives"])
        before = [another_stack.pid_of(name) for name in (SUPERVISOR_GUARD, *PROCESSES)]
        for pid in before:
            os.kill(pid, signal.SIGKILL)

        another_stack.up(owner_pid=owner.pid)
        key = another_stack.paths.fleet_key()
        password = mqtt_password(key, "survives")
        assert probes.mqtt_accepts(another_stack.addresses.mqtt[0], "survives", password)

        pids = [another_stack.pid_of(name) for name in PROCESSES]
        owner.kill()
        owner.wait()
        wait_until(
            lambda: not [pid for pid in pids if process_exists(pid)], 60, "all processes stopped"
        )
    finally:
        owner.kill()
        owner.wait()
        another_stack.down(erase=True)


def _run(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOORSTEP_HOME": str(stack.paths.root)}
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _pid(stack: Stack, name: str) -> int:
    """A process's pid, or 0 while it or supervisord does not run."""
    if name == "supervisor":
        return stack.supervisor.pid() or 0
    process = stack.supervisor.running().get(name)
    return process.pid if process else 0
