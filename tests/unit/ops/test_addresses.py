"""The stack's addresses: default ports, replacements for taken ones, the saved file."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from doorstep.settings import Bind
from ops.stack.addresses import Addresses, add_addresses, any_free_port, choose_addresses, reach
from ops.stack.errors import StackError
from ops.stack.settings import FREE_PORTS, StackSettings


def test_choose__any_port__no_two_processes_share_one() -> None:
    at = choose_addresses(StackSettings(**FREE_PORTS, mqtt_brokers=3), pytest.fail)

    binds = [*at.mqtt, at.kafka, at.kafka_controller, at.database, at.tracking_api]
    binds += [at.driver_api, at.bridge, at.driver_events]
    assert len({bind.port for bind in binds}) == len(binds) == 10


def test_choose__port_taken__another_is_used_and_reported() -> None:
    messages: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        at = choose_addresses(StackSettings(**(FREE_PORTS | {"mqtt_port": port})), messages.append)

    assert at.mqtt[0].port != port
    assert messages == [
        f"port {port} is taken by another program: mosquitto-1 listens on {at.mqtt[0].port}"
    ]


def test_choose__port_taken_on_every_address__counts_as_taken() -> None:
    messages: list[str] = []
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        at = choose_addresses(StackSettings(**(FREE_PORTS | {"kafka_port": port})), messages.append)

    assert at.kafka.port != port
    assert messages


@pytest.mark.parametrize("variable", ["doorstep_bind", "doorstep_internal_bind"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_choose__beyond_loopback_without_tls__is_refused_in_one_line(
    variable: str, host: str
) -> None:
    settings = StackSettings(**FREE_PORTS, **{variable: host})

    with pytest.raises(StackError, match="ALLOW_PLAINTEXT=true") as refused:
        choose_addresses(settings, pytest.fail)
    assert variable.upper() in str(refused.value)
    assert "\n" not in str(refused.value)


def test_choose__beyond_loopback_allowed_by_name__is_used() -> None:
    settings = StackSettings(**FREE_PORTS, doorstep_bind="0.0.0.0", allow_plaintext=True)
    assert choose_addresses(settings, pytest.fail).mqtt[0].host == "0.0.0.0"


def test_choose__tls__only_tls_listeners_use_the_public_address(tmp_path: Path) -> None:
    settings = StackSettings(
        **FREE_PORTS, doorstep_bind="0.0.0.0", doorstep_tls=True, mqtt_brokers=2
    )
    at = choose_addresses(settings, pytest.fail)

    assert at.https is not None
    assert {bind.host for bind in (at.https, *at.mqtt_tls)} == {"0.0.0.0"}
    assert {bind.host for bind in (at.tracking_api, at.driver_api, *at.mqtt)} == {"127.0.0.1"}
    assert at.mqtt_tls_url.count("mqtts://127.0.0.1:") == 2
    at.save(tmp_path / "stack.json")
    assert Addresses.load(tmp_path / "stack.json") == at


def test_load__saved_addresses__are_the_same(tmp_path: Path) -> None:
    at = choose_addresses(StackSettings(**FREE_PORTS, mqtt_brokers=2), pytest.fail)
    at.save(tmp_path / "stack.json")

    assert Addresses.load(tmp_path / "stack.json") == at


def test_load__no_file__is_none(tmp_path: Path) -> None:
    assert Addresses.load(tmp_path / "stack.json") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"mqtt": 3}', '{"mqtt": ["x"]}'])
def test_load__damaged_file__is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)

    with pytest.raises(StackError):
        Addresses.load(tmp_path / "stack.json")


def test_reach__bound_to_every_address__is_loopback() -> None:
    assert reach(Bind("0.0.0.0", 1883)) == Bind("127.0.0.1", 1883)
    assert reach(Bind("10.1.2.3", 1883)) == Bind("10.1.2.3", 1883)


def test_mqtt_url__several_brokers__are_in_order() -> None:
    at = choose_addresses(StackSettings(**FREE_PORTS, mqtt_brokers=3), pytest.fail)

    assert at.mqtt_url == ",".join(f"mqtt://127.0.0.1:{bind.port}" for bind in at.mqtt)


def test_add__file_of_an_earlier_release__gets_the_missing_addresses_and_keeps_the_others(
    tmp_path: Path,
) -> None:
    settings, path = StackSettings(**FREE_PORTS), tmp_path / "addresses.json"
    before = choose_addresses(settings, pytest.fail)
    before.save(path)
    named = json.loads(path.read_text())
    del named["backups"]
    path.write_text(json.dumps(named))

    add_addresses(path, settings, lambda _line: None)

    after = Addresses.load(path)
    assert after is not None
    assert replace(after, backups=before.backups) == before
    assert "backups" in json.loads(path.read_text())


def test_any_free_port__a_range_in_the_environment__is_one_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOORSTEP_ANY_PORTS", "20000-20100")

    assert 20000 <= any_free_port() <= 20100


@pytest.mark.parametrize("text", ["20000", "b-c", "2-1", "1-2000", "60000-70000"])
def test_any_free_port__a_wrong_range__is_an_error(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DOORSTEP_ANY_PORTS", text)

    with pytest.raises(StackError, match="is not FIRST-LAST"):
        any_free_port()


def test_add__file_of_a_release_with_one_exporter_of_two_databases__gets_the_other(
    tmp_path: Path,
) -> None:
    settings = StackSettings(**FREE_PORTS, doorstep_ha=True, doorstep_observe=True)
    path = tmp_path / "addresses.json"
    before = choose_addresses(settings, pytest.fail)
    before.save(path)
    named = json.loads(path.read_text())
    for one in ("kafka_exporters", "postgres_exporters", "etcd_metrics"):
        del named[one]
    path.write_text(json.dumps(named))

    add_addresses(path, settings, lambda _line: None)
    add_addresses(path, settings, lambda _line: None)

    after = Addresses.load(path)
    assert after is not None
    assert after.postgres_exporters[0] == after.postgres_exporter == before.postgres_exporter
    assert len(set(after.postgres_exporters)) == len(before.databases) == 2
    assert after.postgres_exporters[1].host == "127.0.0.1"
    assert (after.kafka_exporters, after.etcd_metrics) == ((), ())  # those servers run on
