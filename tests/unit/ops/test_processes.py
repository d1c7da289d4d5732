"""The processes of the stack: environments, supervisord.conf, the brokers' files, topics."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from supervisor.process import Subprocess

from doorstep.kafka.topic_specs import TOPICS
from doorstep.settings import Bind
from ops.stack import kafka, mosquitto, probes
from ops.stack.addresses import Addresses, choose_addresses
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.processes import SERVICES, ProcessSpec, owner_environment, service_environment
from ops.stack.settings import FREE_PORTS, PROJECT, StackSettings
from ops.stack.stack import Stack
from ops.stack.supervisor import (
    MAX_BACKOFF_S,
    limit_backoff,
    restart_without_delay,
    write_config,
)
from ops.stack.users import as_user, dies_with_parent


@pytest.fixture
def at() -> Addresses:
    return choose_addresses(StackSettings(**FREE_PORTS), pytest.fail)


def test_prepare__secrets__are_readable_by_their_owner_only(paths: StackPaths) -> None:
    files = [path for path in paths.secrets.rglob("*") if path.is_file()]

    assert paths.secrets.stat().st_mode & 0o777 == 0o700
    assert len(files) == 15
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_prepare__repeated__keeps_the_secrets(paths: StackPaths) -> None:
    before = (paths.fleet_key(), paths.staff_token(), paths.database_password("driver_api"))
    paths.prepare()

    assert (paths.fleet_key(), paths.staff_token(), paths.database_password("driver_api")) == before


def test_supervisor_socket__path_too_long__is_in_tmp(tmp_path: Path) -> None:
    deep = StackPaths(tmp_path.joinpath(*["a-rather-long-folder-name"] * 6))

    assert len(str(deep.supervisor_socket)) < 100
    assert StackPaths(tmp_path).supervisor_socket.parent in (tmp_path, Path("/tmp"))


@pytest.mark.parametrize("service", SERVICES)
def test_service_environment__each_service__has_its_own_credentials(
    paths: StackPaths, at: Addresses, service: str
) -> None:
    values = service_environment(service, paths, at)

    if "DATABASE_URL" in values:
        assert f"//{service}:" in values["DATABASE_URL"]
        assert paths.database_password("doorstep_owner") not in values["DATABASE_URL"]
    if "MQTT_URL" in values:
        assert values["MQTT_USERNAME"] == service
    assert "DATABASE_ADMIN_URL" not in values


def test_service_environment__bridge__has_no_database(paths: StackPaths, at: Addresses) -> None:
    assert not [name for name in service_environment("bridge", paths, at) if "DATABASE" in name]


def test_owner_environment__database_url__is_the_owner_s(paths: StackPaths, at: Addresses) -> None:
    assert "//doorstep_owner:" in owner_environment(paths, at)["DATABASE_ADMIN_URL"]


def test_supervisord_config__special_characters__are_quoted_in_a_private_file(
    paths: StackPaths,
) -> None:
    part = ProcessSpec(
        "bridge",
        "services",
        ["python", "-m", "a b", "50%"],
        Bind("127.0.0.1", 1),
        environment={"MQTT_PASSWORD": "a%b,c=d"},
    )
    write_config(paths, [part], owner_pid=None)
    config = configparser.RawConfigParser()
    config.read(paths.supervisor_config)

    assert paths.supervisor_config.stat().st_mode & 0o777 == 0o600
    assert config["program:bridge"]["command"] == "python -m 'a b' 50%%"
    assert config["program:bridge"]["environment"] == 'MQTT_PASSWORD="a%%b,c=d"'
    assert config["group:services"]["programs"] == "bridge"


def test_supervisord_config__a_value_with_quotes__is_refused(paths: StackPaths) -> None:
    part = ProcessSpec("x", "services", ["x"], Bind("127.0.0.1", 1), environment={"A": 'say "hi"'})

    with pytest.raises(StackError):
        write_config(paths, [part], owner_pid=None)


def test_supervisord__after_many_failures__backs_off_for_3_s_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Subprocess, "backoff", 0)
    limit_backoff()
    part = Subprocess(config=None)
    for _ in range(1000):
        part.backoff = part.backoff + 1

    assert part.backoff == MAX_BACKOFF_S
    part.backoff = 0
    assert part.backoff == 0


def test_supervisord__a_killed_process__is_restarted_without_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(Subprocess, "finish", lambda *_: steps.append("finish"))
    monkeypatch.setattr(Subprocess, "transition", lambda _: steps.append("transition"))
    restart_without_delay()

    Subprocess(config=None).finish(4711, 9)

    assert steps == ["finish", "transition"]


def test_as_user__user_and_signal__one_setpriv_sets_both() -> None:
    assert as_user(None, ["x"]) == ["x"]
    assert as_user("nobody", ["x"], on_parent_death="TERM") == [
        "setpriv", "--reuid=nobody", "--regid=nobody", "--init-groups", "--pdeathsig", "TERM",
        "--", "x",
    ]  # fmt: skip


def test_dies_with_parent__a_command_with_setpriv__gets_one_more_option() -> None:
    assert dies_with_parent(["x"], "INT") == ["setpriv", "--pdeathsig", "INT", "--", "x"]
    assert dies_with_parent(as_user("nobody", ["x"]), "INT") == [
        "setpriv", "--pdeathsig", "INT", "--reuid=nobody", "--regid=nobody", "--init-groups",
        "--", "x",
    ]  # fmt: skip


def test_render__new_values__replace_the_template_s() -> None:
    template = mosquitto.TEMPLATE.read_text()
    text = mosquitto.render(template, {"listener": "4711 127.0.0.1", "acl_file": "/x/acl"})

    assert "\nlistener 4711 127.0.0.1\n" in text
    assert "\nacl_file /x/acl\n" in text
    assert "listener 1883" not in text


def test_render__a_name_that_the_template_lacks__is_an_error() -> None:
    with pytest.raises(StackError):
        mosquitto.render("listener 1883\n", {"acl_file": "/x"})


@pytest.mark.parametrize(
    "line",
    [
        "allow_anonymous false",
        "use_username_as_clientid true",
        "set_tcp_nodelay true",
        "persistence true",
        "max_packet_size 65792",
    ],
)
def test_mosquitto_conf__security_and_latency__are_set(line: str) -> None:
    assert line in mosquitto.TEMPLATE.read_text().splitlines()


def test_mosquitto_conf__limits__are_above_the_defaults_that_drop_messages() -> None:
    lines = dict(
        line.split(maxsplit=1)
        for line in mosquitto.TEMPLATE.read_text().splitlines()
        if line and not line.startswith("#")
    )

    assert int(lines["max_inflight_messages"]) >= 1000
    assert int(lines["max_queued_messages"]) >= 25_000 * 40


def test_kafka__unknown_topic__is_not_created() -> None:
    properties = (PROJECT / "kafka" / "server.properties").read_text().splitlines()

    assert "auto.create.topics.enable=false" in properties


def test_broker_argv__no_jars__is_an_error_that_names_them(
    paths: StackPaths, tmp_path: Path
) -> None:
    settings = StackSettings(doorstep_tools=tmp_path)

    with pytest.raises(StackError, match="jars"):
        kafka.broker_argv(paths, settings)


def test_topics__all__state_partitions_and_retention() -> None:
    stated = {topic.name: (topic.partitions, topic.config()) for topic in TOPICS}

    assert {name: partitions for name, (partitions, _) in stated.items()} == {
        "driver-pos": 12,
        "phone-pos": 12,
        "driver-status": 3,
        "tracking-updates": 6,
        "tracking-positions": 3,
        "series": 3,
        "dead-letter": 3,
        "streams": 3,
    }
    assert stated["driver-status"][1]["cleanup.policy"] == "compact"
    assert stated["driver-pos"][1]["retention.ms"] == str(2 * 24 * 60 * 60 * 1000)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"kafka": true, "database": false}', "waits for database"),
        (b'{"ready": false, "checks": {"mqtt": false}}', "waits for mqtt"),
        (b"[]", "not ready"),
        (b"<html>", "not ready"),
    ],
)
def test_not_ready_reason__a_readyz_body__names_the_missing_dependency(
    body: bytes, expected: str
) -> None:
    assert probes._not_ready_reason(body) == expected


def test_up__data_of_another_postgresql__is_refused_before_anything_starts(tmp_path: Path) -> None:
    stack = Stack(
        StackSettings(doorstep_home=tmp_path / "stack", **FREE_PORTS), echo=lambda _: None
    )
    data_dir = stack.paths.postgres / "data"
    data_dir.mkdir(parents=True)
    (data_dir / "PG_VERSION").write_text("9\n")

    with pytest.raises(StackError, match="PostgreSQL 9"):
        stack.up()
    assert not stack.is_up()


def test_service_environment__public_url__replaces_the_own_address(
    paths: StackPaths, at: Addresses
) -> None:
    own = service_environment("tracking_api", paths, at)
    public = service_environment("tracking_api", paths, at, public_url="https://track.example")

    assert own["TRACKING_API_PUBLIC_URL"] == at.tracking_api_url
    assert public["TRACKING_API_PUBLIC_URL"] == "https://track.example"
