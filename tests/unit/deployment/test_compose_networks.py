"""Which containers of docker-compose.yml reach which, and what the observing ones may read.

No container is started here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest

from doorstep.kafka.access_control import GRANTS
from ops.stack import monitoring
from ops.stack.paths import OBSERVER
from sql import query
from tests.unit.deployment.compose import (
    PROJECT,
    filled_environment,
    in_containers,
    load,
    load_services,
)

SERVERS = {"postgis": "data", "kafka": "kafka", "mosquitto": "mqtt"}
TRACES = {"TRACES_ENDPOINT": "http://jaeger:4318/v1/traces"}


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    """The services with everything on that is off by default."""
    return load_services(filled_environment() | TRACES)


def texts_of(service: dict[str, Any]) -> list[str]:
    """A service's variables, and the files mounted into it that name other containers."""
    texts = [str(value) for value in service.get("environment", {}).values()]
    for volume in service.get("volumes", ()):
        mounted = PROJECT / str(volume).split(":")[0]
        if "in-containers" in mounted.parts or "provisioning" in mounted.parts:
            files = mounted.rglob("*.*") if mounted.is_dir() else [mounted]
            texts += [file.read_text(encoding="utf-8") for file in files]
        elif mounted.name == "pgadmin-servers.json":
            [server] = json.loads(mounted.read_text(encoding="utf-8"))["Servers"].values()
            texts.append(f"{server['Host']}:{server['Port']}")
    return texts


def hosts_of(service: dict[str, Any], known: Iterable[str]) -> set[str]:
    """The containers that a service names: in URLs, upstreams, server lists and targets."""
    texts = texts_of(service)
    return {
        host for host in known if any(re.search(rf'(?:^|[@/,"]){host}:\d', text) for text in texts)
    }


def networks_of(service: dict[str, Any]) -> set[str]:
    return set(service.get("networks", ()))


def test_networks__each_container__reaches_what_its_settings_name(
    services: dict[str, dict[str, Any]],
) -> None:
    named = {name: hosts_of(one, services.keys() - {name}) for name, one in services.items()}
    assert named["driver_events"] == {"mosquitto", "kafka", "postgis", "driver_api", "jaeger"}
    for name, hosts in named.items():
        for host in hosts:
            assert networks_of(services[name]) & networks_of(services[host]), (name, host)


def test_networks__each_container__reaches_no_other_server(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, one in services.items():
        reached = {
            server
            for server in SERVERS.keys() - {name}
            if networks_of(one) & networks_of(services[server])
        }
        assert reached == hosts_of(one, SERVERS.keys() - {name}), name


def test_networks__each_container__is_on_none_that_it_does_not_use(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, one in services.items():
        for network in networks_of(one):
            serves = any(
                network in networks_of(other) and name in hosts_of(other, (name,))
                for other in services.values()
            )
            uses = any(network in networks_of(services[host]) for host in hosts_of(one, services))
            publishes = network == "tools" and "ports" in one  # its only use
            sends = (name, network) == ("webhooks", "receivers")  # to servers elsewhere
            assert serves or uses or publishes or sends, (name, network)


def test_networks__only_those_with_published_ports__have_a_way_out() -> None:
    loaded = load(filled_environment())
    internal = {name for name, one in loaded["networks"].items() if one.get("internal") is True}
    assert internal == {*SERVERS.values(), "exporters", "traces"}
    for name, one in loaded["services"].items():
        assert ("ports" in one) <= bool(networks_of(one) - internal), name
    published = loaded["networks"].keys() - internal
    # without it podman routes from one to another
    assert all(
        loaded["networks"][name].get("driver_opts") == {"isolate": "true"} for name in published
    )
    assert loaded["services"]["certificates"]["network_mode"] == "none"


def test_prometheus__targets__are_the_native_ones() -> None:
    folder = PROJECT / "prometheus" / "in-containers"
    found = json.loads((folder / "targets.json").read_text(encoding="utf-8"))
    wanted = monitoring.targets(in_containers(), backups=False)
    by_job = {one["labels"]["job"]: one["targets"] for one in found}
    assert by_job == {one["labels"]["job"]: one["targets"] for one in wanted}
    [alertmanager] = json.loads((folder / "alertmanagers.json").read_text(encoding="utf-8"))
    assert alertmanager["targets"] == [str(in_containers().alertmanager)]


def test_observers__use_the_role_and_principal_that_read_no_positions(
    services: dict[str, dict[str, Any]],
) -> None:
    assert services["postgres_exporter"]["environment"]["DATA_SOURCE_USER"] == OBSERVER
    [server] = json.loads((PROJECT / "grafana" / "pgadmin-servers.json").read_text())[
        "Servers"
    ].values()
    assert server["Username"] == OBSERVER
    jaas = services["kafka_ui"]["environment"]["KAFKA_CLUSTERS_0_PROPERTIES_SASL_JAAS_CONFIG"]
    assert 'username="inspector"' in jaas
    assert not {"driver-pos", "phone-pos", "tracking-positions", "dead-letter", "*"} & set(
        GRANTS["inspector"].reads
    )
    assert GRANTS["inspector"].writes == ()


def test_observers__pgadmin_with_five_query_tabs__leaves_the_exporter_its_connections() -> None:
    limit = re.search(r"CONNECTION LIMIT (\d+)", query("make_observer"))
    exporter, databases, tabs = 2, 2, 5
    assert limit
    assert int(limit[1]) >= exporter + databases + tabs
