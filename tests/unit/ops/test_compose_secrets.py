"""`./run compose-secrets`: everything that the compose file needs, made once, readable by few."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from doorstep.credentials import mqtt_password, read_fleet_key
from doorstep.errors import SettingsError
from ops.stack import compose_secrets
from ops.stack.compose_secrets import KEPT, fill, make_secrets, rotate
from tests.unit.deployment.compose import PROJECT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(PROJECT / ".env.example", tmp_path)
    return tmp_path


def environment_of(project: Path) -> dict[str, str]:
    lines = (project / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_make_secrets__no_place_stays_empty_and_no_password_is_used_twice(project: Path) -> None:
    make_secrets(project)
    environment = environment_of(project)
    secret = [
        value for name, value in environment.items() if name.endswith(("_PASSWORD", "_TOKEN"))
    ]
    assert len(secret) == 21
    assert all(len(value) >= 32 for value in secret)
    assert len(set(secret)) == len(secret)
    assert all(environment.values())


def test_make_secrets__the_services_passwords__do_not_derive_from_the_fleet_key(
    project: Path,
) -> None:
    make_secrets(project)
    key = read_fleet_key(project / ".doorstep" / "compose" / "fleet.key")
    environment = environment_of(project)
    assert environment["BRIDGE_MQTT_PASSWORD"] != mqtt_password(key, "bridge")
    assert environment["DRIVER_EVENTS_MQTT_PASSWORD"] != mqtt_password(key, "driver_events")


def test_make_secrets__nobody_else_on_the_machine_gets_at_them(project: Path) -> None:
    make_secrets(project)
    assert (project / ".env").stat().st_mode & 0o777 == 0o600
    assert (project / ".doorstep" / "compose").stat().st_mode & 0o777 == 0o700


def test_make_secrets__again__changes_nothing(project: Path) -> None:
    assert len(make_secrets(project)) == 3
    before = environment_of(project)
    assert make_secrets(project) == []
    assert environment_of(project) == before


def test_make_secrets__env_without_its_key__is_refused_and_nothing_is_made(project: Path) -> None:
    make_secrets(project)
    shutil.rmtree(project / ".doorstep")
    with pytest.raises(SettingsError, match="restore"):
        make_secrets(project)
    assert not (project / ".doorstep").exists()


def test_fill__a_value_that_is_there__stays() -> None:
    assert fill("# A=\nMQTT_PORT=1883\nX=given\n") == "# A=\nMQTT_PORT=1883\nX=given\n"


def test_make_secrets__env_of_an_older_release__gets_the_new_variable(project: Path) -> None:
    make_secrets(project)
    environment = project / ".env"
    text = environment.read_text(encoding="utf-8")
    older = "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith("DRIVER_API_TOKEN")
    )
    environment.write_text(older, encoding="utf-8")
    assert make_secrets(project) == [environment]
    assert environment.read_text(encoding="utf-8").startswith(older)
    assert len(environment_of(project)["DRIVER_API_TOKEN"]) >= 32
    assert make_secrets(project) == []


def test_compose_secrets__needs_nothing_but_python() -> None:
    argv = [sys.executable, "-I", "-S", "-c"]
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import ops.stack.compose_secrets"
    assert subprocess.run([*argv, code], check=False).returncode == 0


def test_git__ignores_what_it_makes() -> None:
    rules = (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".env", ".doorstep/"} <= set(rules)


def test_main__help__makes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose_secrets, "PROJECT", project)
    monkeypatch.setattr(sys, "argv", ["compose-secrets", "--help"])
    with pytest.raises(SystemExit) as ended:
        compose_secrets.main()
    assert ended.value.code == 0
    assert not (project / ".env").exists()


def test_rotate__every_secret_but_the_volumes__is_replaced_and_settings_stay(project: Path) -> None:
    make_secrets(project)
    with (project / ".env").open("a", encoding="utf-8") as file:
        file.write("# mine\nOWN_SETTING=7\n")
    before = environment_of(project)
    names = rotate(project)
    after = environment_of(project)
    assert len(names) == 20
    assert {name for name in before if before[name] != after[name]} == set(names)
    assert not set(names) & set(KEPT)
    assert "# mine" in (project / ".env").read_text(encoding="utf-8")
    assert (project / ".env").stat().st_mode & 0o777 == 0o600


def test_rotate__without_an_environment__says_what_to_do(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"\./run compose-secrets"):
        rotate(project)
