"""Patroni: runs both database servers, and makes the standby the primary when that is lost.

.doorstep/stack/postgres-N/
├── patroni.yml             with the passwords of both roles, for the server's user only
├── server.pem, ca.crt      as etcd's client
└── data/
"""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doorstep.settings import Bind
from ops.console import Echo
from ops.stack.addresses import Addresses, reach
from ops.stack.errors import StackError
from ops.stack.paths import REPLICATOR, SUPERUSER, StackPaths
from ops.stack.postgres import CONFIG, PostgresCluster, find_binaries, postgres_user
from ops.stack.private_file import replace_file
from ops.stack.replicas import etcd
from ops.stack.users import as_user, make_data_dir

COMMAND = "./run up --ha"
PROBE_TIMEOUT_S = 2.0
PRIMARY = "primary"
SCOPE = "doorstep"
# In the data folder: the settings that both servers share, for an etcd that has none.
SHARED_SETTINGS = "patroni.dynamic.json"
# A primary that cannot renew its lock for TTL_S stops, and the standby takes over. Patroni wants
# loop_wait + 2 x retry_timeout <= ttl.
TTL_S, LOOP_WAIT_S, RETRY_TIMEOUT_S = 20, 5, 5
# The settings that must be equal on both servers: Patroni keeps them in etcd.
SHARED = ("max_connections",)
# The WAL that the primary keeps for a standby that is away for a while. After more, it is copied
# again.
KEPT_WAL = "1GB"


def prepare(
    paths: StackPaths, addresses: Addresses, clusters: Sequence[PostgresCluster], echo: Echo
) -> None:
    """Write the configuration of each server. Patroni creates the first, and copies the other."""
    user = postgres_user()
    for number, cluster in enumerate(clusters, start=1):
        folder = make_data_dir(user, paths.postgres_node(number), echo)
        cluster.prepare_folders()
        etcd.install_certificate(paths, folder, user)
        settings = configuration(paths, addresses, cluster, folder, number)
        replace_file(config_file(paths, number), json.dumps(settings, indent=1) + "\n", user=user)


def configuration(
    paths: StackPaths, addresses: Addresses, cluster: PostgresCluster, folder: Path, number: int
) -> dict[str, Any]:
    """Return one server's configuration. YAML is a superset of JSON."""
    database, rest = (reach(one[number - 1]) for one in (addresses.databases, addresses.patroni))
    parameters = {**CONFIG, **cluster.config, "wal_keep_size": KEPT_WAL}
    shared = {name: parameters.pop(name) for name in SHARED}
    parameters |= {
        "unix_socket_directories": str(cluster.socket_dir),
        "hot_standby": "on",
    }
    return {
        "scope": SCOPE,
        "name": member_name(number),
        "restapi": {
            "listen": str(addresses.patroni[number - 1]),
            "connect_address": str(rest),
            "authentication": {"username": "patroni", "password": paths.patroni_password()},
        },
        "etcd3": {
            "hosts": [str(reach(one)) for one in addresses.etcd],
            "protocol": "https",
            "cacert": str(folder / etcd.AUTHORITY),
            "cert": str(folder / etcd.CERTIFICATE),
            "key": str(folder / etcd.CERTIFICATE),
        },
        "bootstrap": {
            "dcs": {
                "ttl": TTL_S,
                "loop_wait": LOOP_WAIT_S,
                "retry_timeout": RETRY_TIMEOUT_S,
                "synchronous_mode": True,
                "synchronous_mode_strict": False,  # a lone primary writes on
                "failsafe_mode": True,  # without etcd the primary writes on with its standby
                "maximum_lag_on_failover": 0,
                "postgresql": {
                    "use_pg_rewind": True,  # the clusters have checksums
                    "use_slots": True,
                    "parameters": shared,
                },
            },
            "initdb": [
                {"encoding": "UTF8"},
                {"locale": "C.UTF-8"},
                {"auth": "scram-sha-256"},
                "data-checksums",
            ],
        },
        "postgresql": {
            "listen": f"{addresses.databases[number - 1]}",
            "connect_address": str(database),
            "data_dir": str(cluster.data_dir),
            "bin_dir": str(find_binaries()),
            "pgpass": str(folder / "pgpass"),
            "authentication": {
                "superuser": {"username": SUPERUSER, "password": cluster.password},
                "replication": {
                    "username": REPLICATOR,
                    "password": paths.replicator_password(),
                },
            },
            "pg_hba": [
                "local all all scram-sha-256",
                "host all all all scram-sha-256",
                f"host replication {REPLICATOR} all scram-sha-256",
            ],
            "parameters": parameters,
            "basebackup": [{"checkpoint": "fast"}, {"max-rate": "200M"}],
            # Otherwise a server whose files diverged waits for an operator.
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": True,
        },
        "watchdog": {"mode": "off"},
        "log": {"level": "INFO"},
    }


def config_file(paths: StackPaths, number: int) -> Path:
    """Return the path of one server's configuration."""
    return paths.postgres_node(number).resolve() / "patroni.yml"


def member_name(number: int) -> str:
    """Return the name of a server, from 1: also that of its process."""
    return f"patroni-{number}"


def argv(paths: StackPaths, number: int) -> list[str]:
    """Return the command that runs one Patroni, and with it its database server."""
    program = shutil.which("patroni")
    if program is None:
        raise StackError(f"patroni is not installed: {COMMAND} installs it")
    # The system's Python, without this project's environment.
    command = ["env", "-u", "PYTHONPATH", "-u", "PYTHONHOME", program]
    return as_user(postgres_user(), [*command, str(config_file(paths, number))])


def probe(bind: Bind) -> tuple[bool, str]:
    """Return whether a server is primary or synchronous standby, and which, else the reason."""
    status = _request(bind, "/patroni")
    if status is None:
        return False, "does not answer"
    if status.get("state") != "running":
        return False, str(status.get("state", "not ready"))
    if status.get("role") in ("master", "primary"):
        return True, PRIMARY
    if status.get("sync_standby"):
        return True, "synchronous standby"
    return False, "not a synchronous standby yet"


def is_primary(bind: Bind) -> bool:
    """Return whether a server takes writes."""
    return probe(bind) == (True, PRIMARY)


def find_primary(binds: Sequence[Bind]) -> int:
    """Return the place of the server that takes writes, from 0. Raises StackError."""
    for place, bind in enumerate(binds):
        if is_primary(bind):
            return place
    raise StackError("no database server is the primary now: see ./run status")


def _request(bind: Bind, path: str) -> dict[str, Any] | None:
    at = reach(bind)
    connection = http.client.HTTPConnection(at.host, at.port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        body = json.loads(connection.getresponse().read(65536))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if isinstance(body, dict) else None
