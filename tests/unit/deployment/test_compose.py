"""docker-compose.yml is held to the native stack, the services' settings and the pinned versions.

No container is started here: docs/how-to/containers.md says how, and what was measured.
"""

from __future__ import annotations

import importlib
import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from doorstep.kafka.access_control import ADMIN
from doorstep.kafka.provision import passwords_of
from doorstep.settings import Bind, ServiceSettings
from doorstep.traces.settings import TraceSettings
from ops.stack import kafka, processes
from ops.stack.paths import StackPaths
from ops.stack.postgres import CONFIG
from ops.stack.settings import StackSettings
from tests.unit.deployment.compose import (
    PROJECT,
    SERVICES,
    example_environment,
    filled_environment,
    in_containers,
    load_services,
    variables_used,
)

PUBLISHED = {
    "mosquitto": (("MQTT_PORT", "mqtt_port"), ("MQTTS_PORT", "mqtt_tls_port")),
    "driver_api": (("DRIVER_API_PORT", "driver_api_port"),),
    "tracking_api": (("TRACKING_API_PORT", "tracking_api_port"),),
    "caddy": (("HTTPS_PORT", "https_port"),),
}
INTERFACES = {
    "grafana": "GRAFANA_PORT",
    "jaeger": "JAEGER_PORT",
    "kafka_ui": "KAFKA_UI_PORT",
    "pgadmin": "PGADMIN_PORT",
}
OBSERVING = ("prometheus", "alertmanager", "node_exporter", "postgres_exporter", "grafana")
TRACES = {"TRACES_ENDPOINT": "", "TRACES_SHARE": "0.01"}  # natively from the shell of ./run up
# empty unless set, and compose-secrets fills empty ones
OPTIONAL = {"WEBHOOK_ALLOWED_NETWORKS", *TRACES}
UNPINNED = ("POSTGIS", *(name.upper() for name in (*OBSERVING, "kafka_ui", "pgadmin", "jaeger")))


def settings_class(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"{service}.settings")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ServiceSettings)
        and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{service}.settings has {len(found)} settings classes"
    return found[0]


# -- variables --------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_service__same_variables_and_values_as_natively(
    service: str, paths: StackPaths, services: dict[str, dict[str, Any]]
) -> None:
    at = in_containers()
    native = processes.service_environment(service, paths, at, cities_dir=Path("/cities"))
    bind = f"{service.upper()}_BIND"
    native[bind] = str(Bind("0.0.0.0", getattr(at, service).port))
    native["ALLOW_PLAINTEXT"] = "true"  # inside the containers' network
    internal = f"{service.upper()}_INTERNAL_BIND"
    if internal in native:
        native["TRUSTED_PROXIES"] = example_environment()["TRUSTED_PROXIES"]
        native[internal] = str(Bind("0.0.0.0", at.telemetry_of(service).port))
    if issubclass(settings_class(service), TraceSettings):
        native |= TRACES
    if "TRACKING_API_PUBLIC_URL" in native:  # outside the containers, so not a container's name
        native["TRACKING_API_PUBLIC_URL"] = "http://127.0.0.1:8000"
    if service == "webhooks":
        native["WEBHOOK_ALLOWED_NETWORKS"] = ""  # none, until .env has some
    if "JOIN_URL" in native:
        native["JOIN_URL"] = "http://127.0.0.1:8001/join"
    if "PHONE_HTTP_URL" in native:
        native["PHONE_HTTP_URL"] = "http://127.0.0.1:8001"
        native["PHONE_MQTT_URL"] = "mqtt://127.0.0.1:1883"
    assert services[service]["environment"] == native


@pytest.mark.parametrize("service", SERVICES)
def test_service__every_variable_is_a_setting_of_its(
    service: str, services: dict[str, dict[str, Any]]
) -> None:
    fields = settings_class(service).model_fields
    unknown = {name for name in services[service]["environment"] if name.lower() not in fields}
    assert unknown == set()


def test_provision__has_what_the_native_stack_sets_up_with(
    paths: StackPaths, services: dict[str, dict[str, Any]]
) -> None:
    native = processes.owner_environment(paths, in_containers())
    ours = services["provision"]["environment"]
    variables = {name: ours.pop(name) for name in list(ours) if name.startswith("KAFKA_")}
    for name in ("DATABASE_SUPERUSER_URL", "COURIERS", "OBSERVER_PASSWORD"):
        del ours[name]
    admin = processes.kafka_access(paths, in_containers(), ADMIN).environment()
    with_kafka = [name for name in SERVICES if name != "webhooks"]
    passwords = {name: paths.kafka_password(name) for name in (*with_kafka, "inspector")}
    assert variables == admin | {
        f"KAFKA_{name.upper()}_PASSWORD": password for name, password in passwords.items()
    }
    assert passwords_of(variables) == passwords
    assert ours.pop("CITIES_DIR") == services["tracking_api"]["environment"]["CITIES_DIR"]
    assert ours.keys() == native.keys()
    files = {"FLEET_KEY_FILE", "STAFF_TOKEN_FILE"}
    assert {name: ours[name] for name in ours.keys() - files} == {
        name: native[name] for name in native.keys() - files
    }


def test_broker_sync__same_variables_and_values_as_natively(
    paths: StackPaths, services: dict[str, dict[str, Any]]
) -> None:
    native = processes.broker_sync_environment(paths, in_containers())
    ours = services["broker_sync"]["environment"]
    files = {"FLEET_KEY_FILE", "MOSQUITTO_PASSWORD_FILE"}
    files |= {"MOSQUITTO_ACL_FILE", "MOSQUITTO_ACL_TEMPLATE"}
    native = {name: value for name, value in native.items() if name != "STACK_MQTT_PASSWORD"}
    native["BROKER_SYNC_BIND"] = str(Bind("0.0.0.0", in_containers().broker_sync.port))
    native["ALLOW_PLAINTEXT"] = "true"  # inside the containers' network
    assert ours.keys() == native.keys()
    assert {name: ours[name] for name in ours.keys() - files} == {
        name: native[name] for name in native.keys() - files
    }


def test_couriers__same_variables_as_a_native_simulator(
    paths: StackPaths, services: dict[str, dict[str, Any]]
) -> None:
    native = processes.client_environment(paths, in_containers()) | TRACES
    ours = services["couriers"]["environment"]
    assert ours.keys() == native.keys()
    for name in ("MQTT_URL", "DRIVER_API_URL", "TRACKING_API_URL"):
        assert ours[name] == native[name]


def test_kafka__same_properties_as_natively(
    paths: StackPaths, services: dict[str, dict[str, Any]]
) -> None:
    lines = (PROJECT / "kafka" / "server.properties").read_text(encoding="utf-8").splitlines()
    native = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    environment = services["kafka"]["environment"]
    ours = {
        name.removeprefix("KAFKA_").lower().replace("___", "-").replace("_", "."): value.strip()
        for name, value in environment.items()
        if name not in ("CLUSTER_ID", "KAFKA_HEAP_OPTS", "KAFKA_OPTS")
    }
    for name in ("listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"):
        del ours[name]  # where it is: a container's own
    assert ours == native | kafka.authentication(paths.kafka_password(ADMIN))
    assert environment["KAFKA_HEAP_OPTS"] == StackSettings.model_fields["kafka_heap_opts"].default


def test_postgis__same_settings_as_natively(
    paths: StackPaths, services: dict[str, dict[str, Any]]
) -> None:
    cluster = processes.postgres_cluster(paths, in_containers(), paths.postgres)
    native = {**CONFIG, **cluster.config}
    for name in ("logging_collector", "log_line_prefix", "lc_messages"):
        del native[name]  # how it logs is the engine's affair
    command = services["postgis"]["command"]
    assert command[0] == "postgres"
    assert set(command[1::2]) == {"-c"}
    assert dict(pair.split("=", 1) for pair in command[2::2]) == native


# -- images -----------------------------------------------------------------------------------


def test_images__kafka_has_the_version_of_the_native_jars(
    services: dict[str, dict[str, Any]],
) -> None:
    pom = ET.parse(PROJECT / "kafka" / "pom.xml")
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    versions = {
        dependency.findtext("m:artifactId", namespaces=space): dependency.findtext(
            "m:version", namespaces=space
        )
        for dependency in pom.iterfind(".//m:dependency", space)
    }
    image = services["kafka"]["image"].partition("@")[0]
    assert image == f"apache/kafka:{versions['kafka_2.13']}"


def test_images__mosquitto_is_of_the_line_that_survives_a_wrong_file(
    services: dict[str, dict[str, Any]],
) -> None:
    assert re.match(r"eclipse-mosquitto:2\.0\.\d+@", services["mosquitto"]["image"])


def test_images__all_but_those_without_a_known_digest_are_pinned() -> None:
    images = {name: at for name, at in example_environment().items() if name.endswith("_IMAGE")}
    for name in UNPINNED:
        assert re.fullmatch(r"[a-z0-9./-]+:v?[\d.-]+", images.pop(f"{name}_IMAGE")), name
    assert len(images) == 5
    for image in images.values():
        assert re.fullmatch(r"[a-z/-]+:[\w.-]+@sha256:[0-9a-f]{64}", image)


def test_images__a_build_without_compose_starts_from_the_same() -> None:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"(?m)^ARG (\w+_IMAGE)=(.*)$", text))
    assert arguments == {
        name: example_environment()[name] for name in ("PYTHON_IMAGE", "NODE_IMAGE")
    }


def test_images__postgis_is_amd64_and_says_so(services: dict[str, dict[str, Any]]) -> None:
    assert services["postgis"]["image"] == "postgis/postgis:15-3.3"
    assert services["postgis"]["platform"] == "linux/amd64"


def test_images__each_service_is_built_from_an_extra_of_its_own(
    services: dict[str, dict[str, Any]],
) -> None:
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    for name in (*SERVICES, "provision", "couriers"):
        built = services[name]["build"]["args"]["SERVICE"]
        assert built.replace("_", "-") in extras
        assert services[name]["image"] == f"doorstep/{built}:local"
    for name in SERVICES:
        assert services[name]["build"]["args"] == {
            "SERVICE": name,
            **{key: example_environment()[key] for key in ("PYTHON_IMAGE", "NODE_IMAGE")},
        }


def test_images__ours_do_not_run_as_root() -> None:
    lines = (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    last_stage = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
    users = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert any(line.startswith("HEALTHCHECK ") for line in last_stage)


def test_build_context__holds_nothing_but_what_is_named() -> None:
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"  # so .env, .doorstep/ and .git/ never get into an image
    taken = {rule[1:].rstrip("/") for rule in rules if rule.startswith("!")}
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert taken == {"pyproject.toml", "README.md", "LICENSE", "requirements", *packages}


# -- running ----------------------------------------------------------------------------------


def test_ports__only_the_needed_ones_on_loopback_with_the_native_defaults(
    services: dict[str, dict[str, Any]],
) -> None:
    defaults = {name: field.default for name, field in StackSettings.model_fields.items()}
    published = {
        name: one["ports"]
        for name, one in services.items()
        if "ports" in one and name not in INTERFACES
    }
    assert published == {
        name: [f"127.0.0.1:{defaults[setting]}:{defaults[setting]}" for _, setting in ports]
        for name, ports in PUBLISHED.items()
    }


def test_ports__each_can_be_moved() -> None:
    variables = [variable for ports in PUBLISHED.values() for variable, _ in ports]
    moved = {variable: str(20_000 + n) for n, variable in enumerate(variables)}
    binds = {"DOORSTEP_BIND": "0.0.0.0", "DOORSTEP_TLS_BIND": "0.0.0.0"}
    services = load_services({**filled_environment(), **binds, **moved})
    for name, ports in PUBLISHED.items():
        for (variable, _), published in zip(ports, services[name]["ports"], strict=True):
            assert published.startswith(f"0.0.0.0:{moved[variable]}:")


def test_ports__interfaces_of_operators__stay_on_loopback() -> None:
    moved = dict.fromkeys(INTERFACES.values(), "20001")
    services = load_services({**filled_environment(), **moved, "DOORSTEP_BIND": "0.0.0.0"})
    for name in INTERFACES:
        [published] = services[name]["ports"]
        assert published.startswith("127.0.0.1:20001:")


def test_health__checked_wherever_something_waits_for_it(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, one in services.items():
        for needed, how in one.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert services[needed]["healthcheck"].get("test"), f"{name} waits for {needed}"
    for name in ("postgis", "kafka", "mosquitto", "certificates", "caddy", *SERVICES):
        assert services[name]["healthcheck"]["test"]
        assert services[name]["healthcheck"]["interval"]


def test_restart__whatever_runs_comes_back(services: dict[str, dict[str, Any]]) -> None:
    for name, one in services.items():
        assert one["restart"] == ("on-failure" if name == "provision" else "unless-stopped")


def test_privileges__every_container__has_only_the_capabilities_it_needs(
    services: dict[str, dict[str, Any]],
) -> None:
    for one in services.values():
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
    added = {name: one["cap_add"] for name, one in services.items() if "cap_add" in one}
    assert added == {
        "caddy": ["NET_BIND_SERVICE"],
        "pgadmin": ["NET_BIND_SERVICE"],
        "postgis": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
    }


def test_privileges__every_container_but_two__has_a_read_only_root(
    services: dict[str, dict[str, Any]],
) -> None:
    writable = {name for name, one in services.items() if not one.get("read_only")}
    assert writable == {"kafka", "pgadmin"}
    assert all("/tmp" in one["tmpfs"] for one in services.values() if one.get("read_only"))


def test_limits__every_container__has_memory_processes_and_cpus(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, one in services.items():
        assert re.fullmatch(r"\d+[mg]", one["mem_limit"]), name
        assert 1 <= one["pids_limit"] <= 512
        assert 0 < one["cpus"] <= 2


def test_node_exporter__the_container_s_own_mounts__are_no_disks_of_the_host(
    services: dict[str, dict[str, Any]],
) -> None:
    options = dict(one.split("=", 1) for one in services["node_exporter"]["command"])
    excluded = re.compile(options["--collector.filesystem.mount-points-exclude"])
    own = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/dev/shm", "/sys/fs")
    assert all(excluded.search(path) for path in own)
    disks = ("/", "/etc", "/var/lib/docker", "/var/lib/containers/storage", "/srv/etc/hosts")
    assert not any(excluded.search(path) for path in disks)


def test_profile__all_but_the_core_are_left_out_by_default(
    services: dict[str, dict[str, Any]],
) -> None:
    profiles = {name: one["profiles"] for name, one in services.items() if "profiles" in one}
    simulators = {key: ["simulator"] for key in ("couriers", "tickers", "cities")}
    observe = {key: ["observe"] for key in OBSERVING}
    tools = {key: ["tools"] for key in ("kafka_ui", "pgadmin")}
    others = {"caddy": ["tls"], "jaeger": ["traces"]}
    assert profiles == {**others, **simulators, **observe, **tools}


def test_caddy__container_and_its_entry_point__set_the_variables_of_the_caddyfile(
    services: dict[str, dict[str, Any]],
) -> None:
    caddy = PROJECT / "caddy"
    text = (caddy / "Caddyfile").read_text(encoding="utf-8")
    required = set(re.findall(r"\{\$([A-Z_]+)\}", text))
    used = required | set(re.findall(r"\{\$([A-Z_]+):", text))
    script = (caddy / "in-container").read_text(encoding="utf-8")
    exported = {"CADDY_SITE", "CADDY_TLS"}
    assert all(f"{name}=" in script for name in exported)
    given = services["caddy"]["environment"].keys() - {"DOORSTEP_DOMAIN"}
    assert required <= given | exported <= used


def test_environment_file__has_exactly_what_the_compose_file_asks_for() -> None:
    assert set(example_environment()) == variables_used() - OPTIONAL


def test_environment_file__absent__says_what_to_do() -> None:
    with pytest.raises(LookupError, match=r"run \./run compose-secrets first"):
        load_services({})
