"""Commands of `./run` without servers: output and exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from doorstep.credentials import DeviceSecrets, driver_token, encode_fleet_key, mqtt_password
from doorstep.errors import UnknownDriver
from doorstep.secrets_file import keep_secrets
from doorstep.settings import EX_CONFIG
from doorstep.store.people import Device
from ops import checks
from ops.cli import main
from ops.commands import phone_command
from ops.commands.operator_commands import COMMANDS
from ops.stack.paths import StackPaths
from ops.stack.stack import Stack

KEY = bytes(range(32))
AT = datetime(2026, 1, 1, tzinfo=UTC)
ROSAS = {number: DeviceSecrets(f"password-{number}", f"drv_{number}") for number in (1, 2)}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackPaths:
    """A stack's folder with one driver, whose servers never ran."""
    monkeypatch.setenv("DOORSTEP_HOME", str(tmp_path / "stack"))
    paths = StackPaths(tmp_path / "stack")
    paths.secrets.mkdir(parents=True)
    paths.fleet_key_file.write_text(encode_fleet_key(KEY))
    for generation in (1, 2):
        keep_secrets(paths.device_secrets_file, "rosa", generation, ROSAS[generation])
    keep_secrets(paths.device_secrets_file, "sara", 1, ROSAS[1])
    listed = [device("anna"), device("rosa", 2), device("sara", 2), device("gone", removed_at=AT)]
    devices = {"driver": listed}
    monkeypatch.setattr(Stack, "devices", lambda _, kind: devices.get(kind, []))  # the database
    return paths


def device(name: str, generation: int = 0, removed_at: datetime | None = None) -> Device:
    is_derived = generation == 0
    return Device(name, "driver", generation, is_derived, AT, None, removed_at, removed_at)


@pytest.mark.usefixtures("paths")
def test_drivers__list__excludes_the_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drivers"]) == 0
    assert capsys.readouterr().out == "anna\nrosa\nsara\n"


@pytest.mark.usefixtures("paths")
def test_drivers__list_all__has_the_removed_with_their_state(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["drivers", "list", "--all"]) == 0
    assert "gone removed generation 0" in capsys.readouterr().out


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize(
    ("action", "secret"),
    [("token", driver_token(KEY, "anna")), ("password", mqtt_password(KEY, "anna"))],
)
def test_drivers__secret_of_one__is_printed_bare(
    action: str, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drivers", action, "anna"]) == 0
    assert capsys.readouterr().out == secret + "\n"


@pytest.mark.usefixtures("paths")
def test_drivers__tokens_of_several__are_lines_of_id_and_newest_token(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["drivers", "token", "rosa", "anna"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"rosa {ROSAS[2].token}",
        f"anna {driver_token(KEY, 'anna')}",
    ]


@pytest.mark.usefixtures("paths")
def test_drivers__secrets_made_over_the_api__are_not_printed_and_the_command_for_new_ones_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["drivers", "password", "sara"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "./run drivers rotate sara" in printed.err


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("action", ["token", "password", "rotate", "revoke"])
def test_drivers__removed_one__is_refused_with_the_command_to_add(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drivers", action, "gone"]) == 1
    assert "./run drivers add gone" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize(
    "arguments", [["drivers", "token"], ["drivers", "add"], ["sources", "password"]]
)
def test_drivers_and_sources__action_without_an_id__is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "name at least one id" in capsys.readouterr().err


@pytest.mark.usefixtures("paths")
def test_drivers__token_of_an_unknown_driver__is_refused_with_the_command_to_add(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["drivers", "token", "bruno"]) == 1
    assert "./run drivers add bruno" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("action", ["token", "password", "rotate", "revoke", "remove"])
@pytest.mark.parametrize("name", ["Anna", "ana", "anna2"])
def test_drivers__id_like_another__names_that_one_and_prints_no_secret(
    action: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drivers", action, name]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"no driver is named {name} (perhaps anna); all ids: ./run drivers;" in printed.err


@pytest.mark.usefixtures("paths")
def test_drivers__one_unknown_of_several__prints_no_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["drivers", "token", "anna", "bruno", "carla"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no driver is named bruno carla; all ids: ./run drivers;" in printed.err


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("action", ["add", "token", "remove", "phone"])
@pytest.mark.parametrize("name", ["anna bruno", "anna/1", "", "x" * 65, "anna\n"])
def test_drivers__impossible_id__is_refused_with_the_rule(
    action: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_stack: Stack, driver_id: str, **_: bool) -> None:
        raise UnknownDriver(driver_id)

    monkeypatch.setattr(phone_command, "give_phone", refuse)
    assert main(["drivers", action, name]) == (EX_CONFIG if action == "add" else 1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"{name!r} can't be a driver's id: 1 to 64 letters, digits, _ or -" in printed.err
    assert "./run drivers add" not in printed.err


@pytest.fixture
def without_phones(monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver can have a phone."""

    def refuse(_stack: Stack, driver_id: str, **_: bool) -> None:
        raise UnknownDriver(driver_id)

    for name in ("invite", "give_phone", "end_phone"):
        monkeypatch.setattr(phone_command, name, refuse)


@pytest.mark.usefixtures("paths", "without_phones")
@pytest.mark.parametrize("action", ["invite", "phone", "new-phone", "end-phone"])
def test_drivers__phone_of_an_unknown_or_removed_driver__is_refused_with_the_command_to_add(
    action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for driver_id in ("bruno", "gone"):
        assert main(["drivers", action, driver_id]) == 1
        assert f"./run drivers add {driver_id}" in capsys.readouterr().err


@pytest.mark.usefixtures("paths", "without_phones")
def test_drivers__end_a_phone_that_is_not_there__names_the_command_for_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["drivers", "end-phone", "anna"]) == 1
    assert "anna has no phone; to add: ./run drivers phone anna" in capsys.readouterr().err


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize(
    ("host", "hints"), [("127.0.0.1:8001", 1), ("[::1]:8001", 1), ("track.example", 0)]
)
def test_drivers__invite__says_when_the_link_works_on_this_machine_only(
    host: str, hints: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    link = f"http://{host}/join#inv_1"
    monkeypatch.setattr(phone_command, "invite", lambda *_: (link, AT))
    assert main(["drivers", "invite", "anna"]) == 0
    said = capsys.readouterr()
    assert link in said.out
    assert said.err.splitlines() == [phone_command.LOOPBACK_HINT] * hints
    assert "docs/how-to/tls.md" in phone_command.LOOPBACK_HINT


@pytest.mark.usefixtures("paths")
def test_logs__unknown_process__lists_those_with_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "rabbitmq"]) == 2
    assert "'rabbitmq' has no log" in "".join(capsys.readouterr())


def test_owner_pid__a_process_that_has_ended__is_none(paths: StackPaths) -> None:
    stack = Stack()
    assert stack.owner_pid() is None
    (paths.root / "owner.pid").write_text(str(os.getpid()))
    assert stack.owner_pid() == os.getpid()
    (paths.root / "owner.pid").write_text("999999999")
    assert stack.owner_pid() is None


def test_session__stopped_by_down_meanwhile__is_not_stopped_again(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, downs = Stack(), []
    monkeypatch.setattr(stack, "up", lambda **_: None)  # in place of the servers
    monkeypatch.setattr(stack, "down", lambda: downs.append(1))
    with stack.session():
        (paths.root / "owner.pid").write_text(str(os.getpid()))
    assert downs == [1]
    with stack.session():
        (paths.root / "owner.pid").unlink()
    assert downs == [1]


def test_demo__started_with_sigint_ignored__stops_on_it_and_acknowledges_at_once(
    tmp_path: Path,
) -> None:
    code = (
        "import signal, sys, time; from ops import cli; from ops.demo import demo;"
        "demo.run_demo = lambda *_: (print('up', flush=True), time.sleep(30));"
        "sys.exit(cli.main(['demo']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"DOORSTEP_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == b"\nstopping\n"


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("command", COMMANDS)
def test_operator_command__help__needs_no_stack(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    assert "usage" in capfd.readouterr().out


def test_test__help__lists_the_tools_and_runs_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert checks.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: ./run test [PYTEST...]")
    assert all(tool in said for tool in ("ruff", "mypy", "lint-imports", "pytest"))


@pytest.mark.usefixtures("paths")
def test_drivers__add_a_registered_one__is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Stack, "add_drivers", lambda *_, **__: [])  # in place of the servers
    assert main(["drivers", "add", "anna"]) == 0
    assert capsys.readouterr().err == "registered already: anna\n"
    assert main(["drivers", "add", "anna", "bruno"]) == 0
    assert capsys.readouterr().err == (
        "registered already: anna\nadded 1; the MQTT user name is the driver's id\n"
    )


@pytest.mark.parametrize(("driver_id", "is_new"), [("anna", False), ("bruno", True)])
@pytest.mark.usefixtures("paths")
def test_send__no_stack_up__announces_what_it_starts(
    driver_id: str,
    is_new: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Stack, "up", lambda *_, **__: None)  # in place of the servers
    monkeypatch.setattr(Stack, "add_drivers", lambda *_, **__: [])
    monkeypatch.setattr(Stack, "client_environment", lambda _: dict(os.environ))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0))
    assert main(["send", "--driver", driver_id, "--lat", "43.77", "--lon", "11.25"]) == 0
    said = ["no stack is up: starting one for this command"]
    said += [f"registered {driver_id} as a new driver"] if is_new else []
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("command", ["where", "dead-letters", "rebuild"])
def test_operator_command__no_stack_up__names_the_command_to_start_it(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "anna", "1"]) == 1
    assert "./run up" in "".join(capsys.readouterr())
