"""The files and folders of a stack.

.doorstep/stack/
├── secrets/      mode 0700: fleet.key, vapid.key, *.token, devices, database/ROLE, kafka/PRINCIPAL,
│                 mqtt/SERVICE, tls/
├── logs/         one rotated file per process
├── kafka/  mosquitto/  postgres/  caddy/  prometheus/  alertmanager/
├── kafka-N/  postgres-N/  etcd-N/      with --ha, instead of kafka/ and postgres/
├── journals/     of simulated devices
├── stack.json    addresses, while the stack is up
├── tls.json      the source of the certificate, with --tls
├── backup_dir    the folder of backups, once they are used
└── supervisord.conf
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from doorstep.credentials import (
    decode_fleet_key,
    encode_fleet_key,
    new_fleet_key,
    new_service_password,
    new_service_token,
    new_staff_token,
    new_vapid_key,
)
from doorstep.kafka.access_control import ADMIN
from doorstep.password_file import BROKER_SERVICES
from doorstep.secrets_file import FILE_NAME
from ops.stack.errors import StackError
from ops.stack.private_file import replace_file

SUPERUSER = "postgres"
DATABASE_ROLES = (
    SUPERUSER,
    "doorstep_owner",
    "driver_events",
    "driver_api",
    "tracking_api",
    "broker_sync",
    "customer",
    "webhooks",
)
REPLICATOR = "replicator"  # streams the WAL to the standby; with --ha only
OBSERVER = "observer"  # reads statistics, for postgres_exporter; with --observe only
DATABASE_PASSWORD_BYTES = 24
UNIX_SOCKET_PATH_MAX = 100  # bytes; the kernel's limit is 107


@dataclass(frozen=True, slots=True)
class StackPaths:
    """The paths of one stack, below its root folder."""

    root: Path

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def fleet_key_file(self) -> Path:
        return self.secrets / "fleet.key"

    @property
    def staff_token_file(self) -> Path:
        return self.secrets / "staff.token"

    @property
    def vapid_key_file(self) -> Path:
        """The secret of web push: browsers' subscriptions are bound to it, so it stays."""
        return self.secrets / "vapid.key"

    @property
    def driver_api_token_file(self) -> Path:
        return self.secrets / "driver_api.token"

    @property
    def device_secrets_file(self) -> Path:
        """The random secrets of devices that the launcher rotated or added again."""
        return self.secrets / FILE_NAME

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def journals(self) -> Path:
        return self.root / "journals"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def mosquitto(self) -> Path:
        return self.root / "mosquitto"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    def kafka_node(self, number: int) -> Path:
        """The folder of one of several Kafka nodes, from 1."""
        return self.root / f"kafka-{number}"

    def postgres_node(self, number: int) -> Path:
        """The folder of one of several database servers, from 1."""
        return self.root / f"postgres-{number}"

    def etcd_node(self, number: int) -> Path:
        """The folder of one etcd, from 1."""
        return self.root / f"etcd-{number}"

    @property
    def etcd_authority(self) -> Path:
        """The certificate authority of etcd and its clients."""
        return self.secrets / "etcd"

    @property
    def kafka_cluster_file(self) -> Path:
        """The cluster's id, for a node that lost its disk."""
        return self.root / "kafka_cluster_id"

    @property
    def caddy(self) -> Path:
        return self.root / "caddy"

    @property
    def prometheus(self) -> Path:
        return self.root / "prometheus"

    @property
    def alertmanager(self) -> Path:
        return self.root / "alertmanager"

    @property
    def tls(self) -> Path:
        """The stack's own certificate authority."""
        return self.secrets / "tls"

    @property
    def tls_file(self) -> Path:
        return self.root / "tls.json"

    @property
    def password_file(self) -> Path:
        """Mosquitto's users: the services and every device."""
        return self.mosquitto / "passwd"

    @property
    def acl_file(self) -> Path:
        """What Mosquitto's users may do: the project's rules, and those of each phone app."""
        return self.mosquitto / "acl"

    @property
    def addresses_file(self) -> Path:
        return self.root / "stack.json"

    @property
    def supervisor_config(self) -> Path:
        return self.root / "supervisord.conf"

    @property
    def supervisor_pid_file(self) -> Path:
        return self.root / "supervisord.pid"

    @property
    def supervisor_socket(self) -> Path:
        """Below the root, or in /tmp if that path is too long for a Unix socket."""
        path = self.root / "supervisor.sock"
        if len(os.fsencode(path)) <= UNIX_SOCKET_PATH_MAX:
            return path
        return Path("/tmp") / f"doorstep-{self.digest}" / "supervisor.sock"  # noqa: S108 - 0700

    @property
    def lock_file(self) -> Path:
        """Held while a process starts or stops the stack."""
        return self.root / "lock"

    @property
    def owner_file(self) -> Path:
        """The pid of the process that stops the stack when it ends; empty if there is none."""
        return self.root / "owner.pid"

    @property
    def backup_dir_file(self) -> Path:
        """Names the folder of backups, once they are used."""
        return self.root / "backup_dir"

    def backup_dir(self) -> Path | None:
        """Return the folder of backups that is in use."""
        try:
            return Path(self.backup_dir_file.read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            return None

    @property
    def demo_lock_file(self) -> Path:
        """Held by the running demo; holds its pid."""
        return self.root / "demo.lock"

    @property
    def digest(self) -> str:
        """A short, stable name of the root folder."""
        return short_digest(self.root)

    def prepare(self) -> None:
        """Create missing folders and secrets. Idempotent."""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (
            self.secrets,
            self.secrets / "database",
            self.secrets / "mqtt",
            self.journals,
        ):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        socket_dir = self.supervisor_socket.parent
        if socket_dir != self.root:
            socket_dir.mkdir(mode=0o700, exist_ok=True)
            if socket_dir.stat().st_uid != os.geteuid():
                raise StackError(f"{socket_dir} belongs to another user")
        _write_once(self.fleet_key_file, lambda: encode_fleet_key(new_fleet_key()))
        _write_once(self.staff_token_file, lambda: new_staff_token() + "\n")
        _write_once(self.driver_api_token_file, lambda: new_service_token() + "\n")
        _write_once(self.vapid_key_file, lambda: new_vapid_key() + "\n")
        for role in DATABASE_ROLES:
            _write_once(self.secrets / "database" / role, lambda: new_password() + "\n")
        for service in BROKER_SERVICES:
            _write_once(self.secrets / "mqtt" / service, lambda: new_service_password() + "\n")

    def fleet_key(self) -> bytes:
        """Read the key that every device's secrets are derived from."""
        return decode_fleet_key(self.fleet_key_file.read_text(encoding="ascii"))

    def staff_token(self) -> str:
        """Read the staff token."""
        return self.staff_token_file.read_text(encoding="ascii").strip()

    def driver_api_token(self) -> str:
        """Read the token with which driver_events' PATCH sink calls driver_api."""
        return self.driver_api_token_file.read_text(encoding="ascii").strip()

    def vapid_key(self) -> str:
        """Read the secret that the key of web push derives from."""
        return self.vapid_key_file.read_text(encoding="ascii").strip()

    def database_password(self, role: str) -> str:
        """Read a database role's password."""
        return (self.secrets / "database" / role).read_text(encoding="ascii").strip()

    def replicator_password(self) -> str:
        """Read the password of the role REPLICATOR; create it if there is none."""
        return _kept_password(self.secrets / "database" / REPLICATOR)

    def patroni_password(self) -> str:
        """Read the password that changes Patroni's state; create it if there is none."""
        return _kept_password(self.secrets / "patroni")

    def observer_password(self) -> str:
        """Read the password of the role OBSERVER; create it if there is none."""
        return _kept_password(self.secrets / "database" / OBSERVER)

    def mqtt_password(self, service: str) -> str:
        """Read the MQTT password of one of BROKER_SERVICES."""
        return (self.secrets / "mqtt" / service).read_text(encoding="ascii").strip()

    def mqtt_passwords(self) -> dict[str, str]:
        """Read the MQTT passwords of all BROKER_SERVICES."""
        return {service: self.mqtt_password(service) for service in BROKER_SERVICES}

    def kafka_password(self, principal: str) -> str:
        """Read the password of one of Kafka's principals; create it if there is none."""
        file = self.secrets / "kafka" / principal
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _kept_password(file)

    def replace_service_secrets(self) -> dict[str, str]:
        """Draw new secrets of all services, and return them by the old ones.

        Those of the administrators stay.
        """
        roles = [self.secrets / "database" / one for one in DATABASE_ROLES if one != SUPERUSER]
        roles += [one for one in (self.secrets / "database" / OBSERVER,) if one.exists()]
        principals = [one for one in (self.secrets / "kafka").iterdir() if one.name != ADMIN]
        new = dict.fromkeys(roles + principals, new_password)
        services = [self.secrets / "mqtt" / one for one in BROKER_SERVICES]
        new |= dict.fromkeys(services, new_service_password)
        new[self.driver_api_token_file] = new_service_token
        renewed = {}
        for file, draw in new.items():
            renewed[file.read_text(encoding="ascii").strip()] = secret = draw()
            replace_file(file, secret + "\n")
        return renewed

    def store_superuser_password(self, password: str) -> None:
        """Replace the password of the database's superuser."""
        replace_file(self.secrets / "database" / SUPERUSER, password + "\n")

    def replace_kafka_admin_password(self) -> None:
        """Draw a new password of Kafka's administrator."""
        replace_file(self.secrets / "kafka" / ADMIN, new_password() + "\n")

    def erase(self) -> None:
        """Delete data, logs and secrets, including data folders that are links to /var/lib."""
        for folder in (
            self.postgres,
            self.mosquitto,
            self.kafka,
            self.caddy,
            self.prometheus,
            self.alertmanager,
            *self.root.glob("*-[0-9]"),
        ):
            if folder.is_symlink():
                shutil.rmtree(folder.resolve().parent, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)


def short_digest(path: Path) -> str:
    """Ten hexadecimal digits that identify a path."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:10]


def new_password() -> str:
    """Draw a password that needs no quoting in a URL."""
    return secrets.token_urlsafe(DATABASE_PASSWORD_BYTES)


def _kept_password(file: Path) -> str:
    """Read a password; draw it if there is none."""
    _write_once(file, lambda: new_password() + "\n")
    return file.read_text(encoding="ascii").strip()


def _write_once(path: Path, make: Callable[[], str]) -> None:
    if not path.exists():
        replace_file(path, make())
