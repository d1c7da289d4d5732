"""Monitoring (`./run up --observe`): Prometheus, Alertmanager and the exporters, on loopback.

.doorstep/stack/
├── prometheus/    prometheus.yml, alerts.yml, targets.json, alertmanagers.json, data/
└── alertmanager/  alertmanager.yml, data/
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from doorstep.settings import Bind
from ops.console import Echo
from ops.stack.addresses import Addresses, reach
from ops.stack.backup_repository import BackupRepository
from ops.stack.monitoring_files import FOLDER, find_agent, find_program
from ops.stack.paths import OBSERVER, StackPaths
from ops.stack.postgres import DATABASE, PostgresCluster
from ops.stack.private_file import replace_file
from ops.stack.processes import BROKER_SYNC, SERVICES, ProcessSpec, has_service
from ops.stack.settings import StackSettings
from ops.stack.users import SERVICE_USER, as_user, dies_with_parent, make_data_dir, server_user

RETENTION = ("--storage.tsdb.retention.time=15d", "--storage.tsdb.retention.size=2GB")
EXPORTERS = {"node": "node_exporter", "postgres": "postgres_exporter", "kafka": "kafka_exporter"}


def user() -> str | None:
    """Return the user to switch to; None to stay the current user."""
    return server_user(SERVICE_USER)


def prepare(paths: StackPaths, addresses: Addresses, settings: StackSettings, echo: Echo) -> None:
    """Write the configurations, for a stack with monitoring. Idempotent. Raises StackError."""
    if addresses.prometheus is None:
        return
    find_agent(settings)
    for folder in (paths.prometheus, paths.alertmanager):
        make_data_dir(user(), folder, echo)
    for name in ("prometheus.yml", "alerts.yml"):
        replace_file(paths.prometheus.resolve() / name, (FOLDER / name).read_text(), user=user())
    alertmanagers = [{"targets": [str(addresses.alertmanager)]}]
    _write_json(paths.prometheus / "alertmanagers.json", alertmanagers)
    write_targets(paths, addresses, backups=BackupRepository.of(paths, settings).is_wanted)
    text = (FOLDER / "alertmanager.yml").read_text()
    if settings.alert_webhook_url is not None:
        url = json.dumps(settings.alert_webhook_url.get_secret_value())
        text += f"    webhook_configs: [{{url: {url}, send_resolved: true}}]\n"
    replace_file(paths.alertmanager.resolve() / "alertmanager.yml", text, user=user())


def write_targets(paths: StackPaths, addresses: Addresses, *, backups: bool) -> None:
    """Write what Prometheus scrapes; it reads the file again by itself."""
    if addresses.prometheus is not None:
        _write_json(paths.prometheus / "targets.json", targets(addresses, backups=backups))


def targets(addresses: Addresses, *, backups: bool) -> list[dict[str, Any]]:
    """Return the scraped addresses, each with its job."""
    jobs = {name: addresses.telemetry_of(name) for name in SERVICES if has_service(name)}
    jobs[BROKER_SYNC] = reach(addresses.broker_sync)
    if backups:
        jobs["backups"] = reach(addresses.backups)
    found = list(jobs.items())
    for job, name in EXPORTERS.items():
        found += [(job, bind) for bind in _each(addresses, name)]
    found += [("patroni", reach(bind)) for bind in addresses.patroni]
    found += [("etcd", bind) for bind in addresses.etcd_metrics]
    return [{"targets": [str(bind)], "labels": {"job": job}} for job, bind in found]


def _each(addresses: Addresses, exporter: str) -> tuple[Bind, ...]:
    """Return the addresses of one kind of exporter: with --ha one per server."""
    one: Bind = getattr(addresses, exporter)
    return getattr(addresses, f"{exporter}s", ()) or (one,)


def set_up(paths: StackPaths, addresses: Addresses, cluster: PostgresCluster) -> None:
    """Create the exporter's role in the running database. Idempotent."""
    if addresses.prometheus is not None:
        cluster.create_observer(paths.observer_password())


def monitoring_specs(
    paths: StackPaths, addresses: Addresses, settings: StackSettings
) -> list[ProcessSpec]:
    """Specify the processes, for a stack with monitoring."""
    if addresses.prometheus is None:
        return []
    alertmanager, prometheus = paths.alertmanager.resolve(), paths.prometheus.resolve()
    return [
        _spec("node_exporter", addresses, settings, ["--collector.disable-defaults", *_NODE]),
        *(
            _postgres_exporter(paths, addresses, settings, number)
            for number, _ in enumerate(_each(addresses, "postgres_exporter"), start=1)
        ),
        _spec(
            "alertmanager",
            addresses,
            settings,
            [
                "--config.file=alertmanager.yml",
                "--storage.path=data",
                "--cluster.listen-address=",  # alone
            ],
            directory=alertmanager,
        ),
        _spec(
            "prometheus",
            addresses,
            settings,
            ["--config.file=prometheus.yml", "--storage.tsdb.path=data", *RETENTION],
            directory=prometheus,
        ),
    ]


_NODE = [
    f"--collector.{name}"
    for name in ("cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "time", "timex")
]


def _postgres_exporter(
    paths: StackPaths, addresses: Addresses, settings: StackSettings, number: int
) -> ProcessSpec:
    """Specify the exporter of one database server. It reads that one, primary or not."""
    database = (addresses.databases or (addresses.database,))[number - 1]
    return _spec(
        "postgres_exporter",
        addresses,
        settings,
        ["--disable-settings-metrics", f"--extend.query-path={FOLDER / 'postgres.yml'}"],
        number=number,
        environment={
            "DATA_SOURCE_URI": f"{reach(database)}/{DATABASE}?sslmode=disable",
            "DATA_SOURCE_USER": OBSERVER,
            "DATA_SOURCE_PASS": paths.observer_password(),
        },
    )


def _spec(
    program: str,
    addresses: Addresses,
    settings: StackSettings,
    options: list[str],
    *,
    number: int = 1,
    directory: Path = Path("/"),
    environment: dict[str, str] | None = None,
) -> ProcessSpec:
    bind = _each(addresses, program)[number - 1]
    name = program if number == 1 else f"{program}-{number}"
    argv = [
        find_program(settings, program),
        *options,
        f"--web.listen-address={bind}",
        "--log.level=warn",
    ]
    return ProcessSpec(
        name,
        "monitoring",
        dies_with_parent(as_user(user(), argv), "TERM"),
        bind,
        directory=directory,
        environment=environment or {},
    )


def _write_json(path: Path, content: object) -> None:
    replace_file(path.parent.resolve() / path.name, json.dumps(content), user=user())
