"""The settings of the native stack, as environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr

from doorstep.settings import ServiceSettings

PROJECT = Path(__file__).resolve().parents[2]

Port = Annotated[int, Field(ge=0, le=65535)]


class StackSettings(ServiceSettings):
    """Where the stack keeps its files and listens. Port 0 means any free port."""

    doorstep_home: Path = PROJECT / ".doorstep" / "stack"
    doorstep_tools: Path = PROJECT / ".doorstep"
    cities_dir: Path | None = None  # beside doorstep_home

    # The bind address for devices, customers and staff: Mosquitto, driver_api, tracking_api.
    doorstep_bind: str = "127.0.0.1"
    # The bind address for other processes and monitoring only.
    doorstep_internal_bind: str = "127.0.0.1"

    # TLS: an own authority, unless a certificate is given. A domain: Caddy obtains its own by ACME.
    doorstep_tls: bool = False
    doorstep_tls_names: str = ""
    doorstep_domain: str | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    allow_plaintext: bool = False

    mqtt_brokers: Annotated[int, Field(ge=1, le=64)] = 1
    mqtt_port: Port = 1883
    mqtt_tls_port: Port = 8883
    https_port: Port = 8443
    kafka_port: Port = 9092
    database_port: Port = 5432
    tracking_api_port: Port = 8000
    driver_api_port: Port = 8001
    tracking_api_internal_port: Port = 8010
    driver_api_internal_port: Port = 8011
    bridge_port: Port = 8003
    driver_events_port: Port = 8004
    backup_port: Port = 8005
    webhooks_port: Port = 8006
    broker_sync_port: Port = 8007

    # Replicas: a standby of the database, three Kafka nodes, three etcd. Patroni is on loopback.
    doorstep_ha: bool = False
    patroni_port: Port = 8020

    # Monitoring, always on loopback: Prometheus, Alertmanager and the exporters.
    doorstep_observe: bool = False
    prometheus_port: Port = 9090
    alertmanager_port: Port = 9093
    node_exporter_port: Port = 9100
    postgres_exporter_port: Port = 9187
    kafka_exporter_port: Port = 9404
    alert_webhook_url: SecretStr | None = None

    # The start of customers' links, if it differs from tracking_api's own address.
    tracking_api_public_url: str | None = None

    # Backups: used once BACKUP_DIR is set, or after the first ./run backup.
    backup_dir: Path | None = None
    backup_every_h: Annotated[float, Field(ge=0, le=24 * 31)] = 24.0
    backup_full_every_days: Annotated[float, Field(gt=0)] = 7.0
    backup_keep_full: Annotated[int, Field(ge=1)] = 2
    # The passphrase of an encrypted repository. Without it every backup is lost.
    backup_cipher_pass_file: Path | None = None

    kafka_heap_opts: str = "-Xms256m -Xmx512m"

    @property
    def cities_root(self) -> Path:
        """The folder of the folders of cities."""
        return (self.cities_dir or self.doorstep_home.parent / "cities").absolute()


# StackSettings(**FREE_PORTS) listens on free ports only: for stacks of tests and benchmarks.
FREE_PORTS: dict[str, Any] = {
    name: 0 for name in StackSettings.model_fields if name.endswith("_port")
}
