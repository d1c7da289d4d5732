"""What `--ha` writes: Patroni's files, folders of the other kind, the addresses of all nodes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ops.stack import monitoring
from ops.stack.addresses import Addresses, choose_addresses
from ops.stack.errors import StackError
from ops.stack.monitoring_files import jmx_agent
from ops.stack.paths import StackPaths
from ops.stack.postgres import CONFIG
from ops.stack.replicas import etcd, patroni
from ops.stack.replicas.specs import check_folder, database_nodes
from ops.stack.settings import FREE_PORTS, StackSettings


@pytest.fixture
def at() -> Addresses:
    return choose_addresses(StackSettings(**FREE_PORTS, doorstep_ha=True), pytest.fail)


def test_choose_addresses__with_replicas__every_node_has_its_own(
    at: Addresses, tmp_path: Path
) -> None:
    nodes = [*at.kafkas, *at.kafka_controllers, *at.databases, *at.patroni, *at.etcd]

    assert len({str(one) for one in nodes}) == 3 + 3 + 2 + 2 + 3
    assert at.database == at.databases[0]
    assert at.kafka_servers.count(",") == 2
    at.save(tmp_path / "addresses.json")
    assert Addresses.load(tmp_path / "addresses.json") == at


def test_choose_addresses__with_replicas_and_monitoring__none_is_used_twice() -> None:
    settings = StackSettings(**FREE_PORTS, doorstep_ha=True, doorstep_observe=True)

    at = choose_addresses(settings, pytest.fail)

    assert at.alertmanager not in at.kafkas


@pytest.fixture
def observed(tools: Path) -> StackSettings:
    return StackSettings(
        **FREE_PORTS, doorstep_tools=tools, doorstep_ha=True, doorstep_observe=True
    )


def test_targets__with_replicas_and_monitoring__are_every_node_of_each_server(
    paths: StackPaths, observed: StackSettings
) -> None:
    at = choose_addresses(observed, pytest.fail)

    found = monitoring.targets(at, backups=False)

    jobs = Counter(one["labels"]["job"] for one in found)
    assert (jobs["kafka"], jobs["postgres"], jobs["etcd"], jobs["patroni"]) == (3, 2, 3, 2)
    addresses = [one["targets"][0] for one in found]
    assert len(set(addresses)) == len(addresses)
    assert {one.partition(":")[0] for one in addresses} == {"127.0.0.1"}
    for number, bind in enumerate(at.kafka_exporters, start=1):
        [option] = jmx_agent(at, observed, number)
        assert f"={bind}:" in option
    specs = {one.name: one for one in monitoring.monitoring_specs(paths, at, observed)}
    exporters = [specs[name] for name in ("postgres_exporter", "postgres_exporter-2")]
    databases = [one.environment["DATA_SOURCE_URI"].partition("/")[0] for one in exporters]
    assert databases == [str(one) for one in at.databases]
    assert tuple(one.address for one in exporters) == at.postgres_exporters


def test_etcd__with_monitoring__serves_metrics_on_loopback(
    paths: StackPaths, observed: StackSettings
) -> None:
    at = choose_addresses(observed, pytest.fail)

    argv = etcd.member_argv(paths, at, observed, 2, etcd.initial_cluster(at))

    assert f"--listen-metrics-urls=http://{at.etcd_metrics[1]}" in argv
    assert at.etcd_metrics[1].host == "127.0.0.1"


def test_url__of_replicas__names_both_and_wants_the_primary(
    paths: StackPaths, at: Addresses
) -> None:
    first, second = database_nodes(paths, at)

    url = first.url("driver_api", "secret")

    assert f"@{at.databases[0]},{at.databases[1]}/" in url
    assert url.endswith("?target_session_attrs=read-write")
    assert second.url("driver_api", "secret") == url
    assert first.data_dir != second.data_dir


def test_configuration__of_a_server__is_synchronous_and_as_without_replicas(
    paths: StackPaths, at: Addresses
) -> None:
    cluster = database_nodes(paths, at)[1]

    found = patroni.configuration(paths, at, cluster, paths.postgres_node(2), 2)

    shared = found["bootstrap"]["dcs"]
    assert (shared["ttl"], shared["loop_wait"], shared["retry_timeout"]) == (20, 5, 5)
    assert shared["synchronous_mode"] is True
    assert shared["failsafe_mode"] is True
    parameters = found["postgresql"]["parameters"] | shared["postgresql"]["parameters"]
    assert CONFIG.items() <= parameters.items()
    assert found["postgresql"]["listen"] == str(at.databases[1])


@pytest.mark.parametrize("is_replicated", [True, False])
def test_check_folder__data_of_the_other_kind__are_refused(
    paths: StackPaths, at: Addresses, *, is_replicated: bool
) -> None:
    without = choose_addresses(StackSettings(**FREE_PORTS), pytest.fail)
    other = paths.postgres / "data" if is_replicated else paths.postgres_node(1)
    mine = at if is_replicated else without
    check_folder(paths, mine)
    other.mkdir(parents=True)

    with pytest.raises(StackError, match=r"high-availability\.md"):
        check_folder(paths, mine)


def test_monitoring_targets__of_replicas__include_each_patroni() -> None:
    settings = StackSettings(**FREE_PORTS, doorstep_ha=True, doorstep_observe=True)
    at = choose_addresses(settings, pytest.fail)

    found = monitoring.targets(at, backups=False)

    scraped = [one["targets"] for one in found if one["labels"]["job"] == "patroni"]
    assert scraped == [[str(bind)] for bind in at.patroni]
