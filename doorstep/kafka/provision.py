"""`python -m doorstep.kafka.provision`: create Kafka's topics, credentials and access rules.

Reads KAFKA_BOOTSTRAP_SERVERS, the administrator's KAFKA_USERNAME, KAFKA_PASSWORD and
KAFKA_SASL_MECHANISM, KAFKA_REPLICATION_FACTOR, and the password of each principal that has one,
for example KAFKA_DRIVER_EVENTS_PASSWORD. Waits up to 60 s for Kafka. Idempotent.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from doorstep.errors import Unavailable
from doorstep.kafka.access import KafkaAccess, KafkaSettings
from doorstep.kafka.access_control import GRANTS, provision_access
from doorstep.kafka.topic_specs import create_topics

WAIT_S = 60.0


def provision_kafka(
    admin: KafkaAccess, passwords: Mapping[str, str], *, replication_factor: int = 1
) -> list[str]:
    """Create what is missing and return the created topics' names. Raises Unavailable."""
    created = create_topics(admin, replication_factor=replication_factor)
    if admin.username is not None:
        provision_access(admin, passwords)
    return created


def passwords_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the password of each principal that the environment names."""
    found = {name: environment.get(f"KAFKA_{name.upper()}_PASSWORD", "") for name in GRANTS}
    return {name: password for name, password in found.items() if password}


def main() -> int:
    """Provision Kafka; the return value is the exit status."""
    admin = KafkaSettings.load_or_exit().kafka
    factor = int(os.environ.get("KAFKA_REPLICATION_FACTOR", "1"))
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            created = provision_kafka(admin, passwords_of(os.environ), replication_factor=factor)
        except Unavailable as exc:
            if time.monotonic() > deadline:
                print(f"kafka: {exc}", file=sys.stderr)
                return 1
            time.sleep(1)
            continue
        topics = ", ".join(created) or "no topic: all exist"
        print(f"kafka: created {topics}; access rules are set", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())
