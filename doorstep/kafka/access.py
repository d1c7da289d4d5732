"""How a client reaches Kafka: addresses, principal and password."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from doorstep.settings import ServiceSettings

SCRAM = "SCRAM-SHA-256"
PLAIN = "PLAIN"  # the broker's own file holds the administrator's password


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """Bootstrap servers with the credentials of one principal.

    Without a username the client connects in plain text and unauthenticated, which only a broker
    without access control accepts. `ca_file` names the authority of a broker that speaks TLS.
    """

    bootstrap_servers: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    mechanism: str = SCRAM

    def __str__(self) -> str:
        return self.bootstrap_servers

    def as_librdkafka_dict(self) -> dict[str, str]:
        """Return the settings that every Kafka client of this principal needs."""
        config = {"bootstrap.servers": self.bootstrap_servers}
        if self.ca_file is not None:
            config["ssl.ca.location"] = str(self.ca_file)
        if self.username is not None:
            config |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password or "",
            }
        protocol = ("SASL_" if self.username else "") + ("SSL" if self.ca_file else "PLAINTEXT")
        return config | {"security.protocol": protocol}

    def environment(self) -> dict[str, str]:
        """Return the environment variables that `KafkaSettings` reads as this access."""
        variables = {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}
        if self.ca_file is not None:
            variables["KAFKA_CA_FILE"] = str(self.ca_file)
        if self.username is not None:
            variables |= {"KAFKA_USERNAME": self.username, "KAFKA_PASSWORD": self.password or ""}
            variables["KAFKA_SASL_MECHANISM"] = self.mechanism
        return variables


class KafkaSettings(ServiceSettings):
    """What every service that uses Kafka reads from its environment."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_sasl_mechanism: str = SCRAM

    @property
    def kafka(self) -> KafkaAccess:
        """Return how to reach Kafka."""
        password = self.kafka_password.get_secret_value() if self.kafka_password else None
        return KafkaAccess(
            self.kafka_bootstrap_servers,
            self.kafka_username,
            password,
            self.kafka_ca_file,
            self.kafka_sasl_mechanism,
        )
