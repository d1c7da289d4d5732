"""`--observe`: addresses, configurations and processes. Nothing is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from ops.cli import main
from ops.stack import monitoring
from ops.stack.addresses import MONITORING, Addresses, check_options, choose_addresses
from ops.stack.errors import StackError
from ops.stack.monitoring_files import JMX_AGENT, jmx_agent
from ops.stack.paths import OBSERVER, StackPaths
from ops.stack.settings import FREE_PORTS, PROJECT, StackSettings
from ops.stack.stack import Stack


@pytest.fixture
def settings(tools: Path) -> StackSettings:
    return StackSettings(
        doorstep_tools=tools,
        doorstep_observe=True,
        doorstep_internal_bind="0.0.0.0",
        allow_plaintext=True,
        **FREE_PORTS,
    )


@pytest.fixture
def at(settings: StackSettings) -> Addresses:
    return choose_addresses(settings, pytest.fail)


def test_addresses__with_an_internal_bind_for_all__monitoring_stays_on_loopback(
    at: Addresses, tmp_path: Path
) -> None:
    assert at.bridge.host == "0.0.0.0"
    assert {getattr(at, name).host for name in MONITORING} == {"127.0.0.1"}
    at.save(tmp_path / "stack.json")
    assert Addresses.load(tmp_path / "stack.json") == at


def test_addresses__without_the_option__there_is_no_monitoring(paths: StackPaths) -> None:
    plain = StackSettings(**FREE_PORTS)
    at = choose_addresses(plain, pytest.fail)
    assert [getattr(at, name) for name in MONITORING] == [None] * 5
    assert monitoring.monitoring_specs(paths, at, plain) == []
    assert jmx_agent(at, plain) == []
    monitoring.prepare(paths, at, plain, pytest.fail)
    assert not paths.prometheus.exists()


def test_check_options__running_stack_without_monitoring__says_what_to_do(
    settings: StackSettings,
) -> None:
    running = choose_addresses(StackSettings(**FREE_PORTS), pytest.fail)
    with pytest.raises(
        StackError, match=r"without --observe: \./run down, then ./run up --observe"
    ):
        check_options(settings, running)


def test_prepare__configurations__are_private_and_name_every_target(
    paths: StackPaths, at: Addresses, settings: StackSettings
) -> None:
    monitoring.prepare(paths, at, settings, lambda _line: None)
    folder = paths.prometheus.resolve()
    files = [path for path in folder.iterdir() if path.is_file()]
    assert len(files) == 4
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    jobs = {one["labels"]["job"] for one in json.loads((folder / "targets.json").read_text())}
    assert jobs == {
        *("bridge", "driver_events", "driver_api", "tracking_api", "webhooks"),
        *("broker_sync", "node", "postgres", "kafka"),
    }
    monitoring.write_targets(paths, at, backups=True)
    assert '"backups"' in (folder / "targets.json").read_text()


@pytest.mark.parametrize("url", [None, "https://hooks.test/a?b=c&d='\"#e"])
def test_alertmanager__webhook__is_its_only_integration(
    paths: StackPaths, at: Addresses, settings: StackSettings, url: str | None
) -> None:
    webhook = None if url is None else SecretStr(url)
    chosen = settings.model_copy(update={"alert_webhook_url": webhook})
    monitoring.prepare(paths, at, chosen, lambda _line: None)
    text = (paths.alertmanager.resolve() / "alertmanager.yml").read_text()
    [receiver] = yaml.safe_load(text)["receivers"]
    found = [one["url"] for one in receiver.get("webhook_configs", ())]
    assert found == ([] if url is None else [url])
    assert yaml.safe_load(text)["route"]["receiver"] == receiver["name"]


def test_specs__password__is_in_the_environment_and_in_no_command(
    paths: StackPaths, at: Addresses, settings: StackSettings
) -> None:
    specs = monitoring.monitoring_specs(paths, at, settings)
    password = paths.observer_password()
    assert [one.name for one in specs if password in one.environment.values()] == [
        "postgres_exporter"
    ]
    assert not [one for one in specs if password in " ".join(one.argv)]
    [exporter] = [one for one in specs if one.name == "postgres_exporter"]
    assert exporter.environment["DATA_SOURCE_USER"] == OBSERVER


def test_kafka__with_monitoring__runs_the_agent_on_its_address(
    at: Addresses, settings: StackSettings
) -> None:
    [option] = jmx_agent(at, settings)
    assert option.startswith("-javaagent:")
    assert option.endswith(f"{JMX_AGENT}={at.kafka_exporter}:{PROJECT}/prometheus/kafka.yml")


def test_run_script__agent__is_the_one_that_is_looked_for() -> None:
    assert f"agent={JMX_AGENT}\n" in (PROJECT / "run").read_text(encoding="utf-8")


def test_program__missing__says_how_to_get_it(
    paths: StackPaths, at: Addresses, settings: StackSettings, tools: Path
) -> None:
    (tools / "lib" / JMX_AGENT).unlink()
    with pytest.raises(StackError, match="--observe downloads it"):
        monitoring.prepare(paths, at, settings, pytest.fail)


@pytest.mark.parametrize("command", ["up", "demo"])
def test_command__with_observe__starts_a_stack_with_monitoring(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOORSTEP_HOME", str(tmp_path / "stack"))
    wanted: list[bool] = []

    def up(stack: Stack, **_: object) -> None:
        wanted.append(stack.settings.doorstep_observe)
        raise StackError("far enough")

    monkeypatch.setattr(Stack, "up", up)
    for options in ([], ["--observe"]):
        assert main([command, *options]) == 1
    assert wanted == [False, True]
