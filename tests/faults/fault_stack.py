"""The stack that faults break."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ops.stack.processes import Kind, ProcessSpec
from ops.stack.settings import StackSettings
from ops.stack.setup import set_up_kafka
from ops.stack.stack import Stack
from ops.stack.supervisor import write_config
from tests.faults.second_kafka import REPLICAS, SecondKafka

RETENTION_CHECK_MS = 5000  # 60 s by default: a fault waits until Kafka deletes
BROKER_OPTIONS = ("--override", f"log.retention.check.interval.ms={RETENTION_CHECK_MS}")

Variables = Mapping[str, str]


class FaultStack(Stack):
    """A stack whose parts can get other variables, with an optional second Kafka broker."""

    def __init__(
        self, settings: StackSettings, environment: Variables, *, two_kafkas: bool
    ) -> None:
        self.overrides: dict[str, Variables] = {}
        self.prefixes: Mapping[str, Sequence[str]] = {}
        self.second_kafka: SecondKafka | None = None
        self._two_kafkas = two_kafkas
        super().__init__(settings, environment=environment, echo=lambda _line: None)

    def prepare_kafka(self) -> None:
        super().prepare_kafka()
        if self._two_kafkas:
            self.second_kafka = SecondKafka(self.paths, self.addresses, self.settings)

    def set_up(self) -> None:
        if self.second_kafka is not None:
            # In this thread: the broker ends with the thread that started it. Before the topics
            # are created: Kafka assigns replicas only to brokers that run.
            self.second_kafka.start()
            set_up_kafka(self.paths, self.addresses, REPLICAS)
        super().set_up()

    def process_specs(self) -> list[ProcessSpec]:
        if len(self.addresses.mqtt) > 1:
            first = {"MQTT_URL": self.addresses.mqtt_url.partition(",")[0]}
            self.overrides.setdefault("bridge", first)
        return [
            replace(
                part,
                environment={**part.environment, **self.overrides.get(part.name, {})},
                argv=[
                    *_prefixed(part.argv, self.prefixes.get(part.name, ())),
                    *(BROKER_OPTIONS if part.name == "kafka" else ()),
                ],
            )
            for part in super().process_specs()
        ]

    def restart(self, *kinds: Kind) -> None:
        """Restart all parts of these kinds, in this order, with their current variables."""
        write_config(self.paths, self.process_specs(), os.getpid())
        self.supervisor.read_config()
        for kind in reversed(kinds):
            self.supervisor.stop_group(kind)
        for kind in kinds:
            self.supervisor.replace_group(kind)


def _prefixed(argv: list[str], prefix: Sequence[str]) -> list[str]:
    """Put a prefix before a command, after the `setpriv` that changes its user."""
    if not prefix:
        return argv
    at = argv.index("--") + 1 if argv[0] == "setpriv" else 0
    return [*argv[:at], *prefix, *argv[at:]]
