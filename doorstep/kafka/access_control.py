"""Kafka's principals and what each may do: one per service, nothing more than it does.

principal      reads                                        writes
bridge                                                      driver-pos, phone-pos, driver-status,
                                                            series, dead-letter
driver_events  driver-pos, phone-pos, series                tracking-updates,
                                                            tracking-positions, dead-letter
driver_api                                                  tracking-positions
tracking_api   tracking-updates, tracking-positions,        streams
               series, streams; describes everything
inspector      tracking-updates, series, streams;
               describes everything (docker-compose.yml's interface for Kafka)
operator       everything
admin          everything (creates topics, credentials and these rules)
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from doorstep.errors import KafkaUnavailable
from doorstep.kafka.access import KafkaAccess

ADMIN = "admin"
OPERATOR = "operator"
SCRAM_ITERATIONS = 4096  # Kafka's least; the passwords are random, so more would protect nothing
ANSWER_TIMEOUT_S = 20.0
ANY = "*"


@dataclass(frozen=True, slots=True)
class Grant:
    """The topics and consumer groups of one principal. `*` means all; groups are prefixes."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    describes_all: bool = False  # names and offsets of every topic and group, no record
    groups: tuple[str, ...] = ()


GRANTS: Mapping[str, Grant] = {
    "bridge": Grant(writes=("driver-pos", "phone-pos", "driver-status", "series", "dead-letter")),
    "driver_events": Grant(
        reads=("driver-pos", "phone-pos", "series"),
        writes=("tracking-updates", "tracking-positions", "dead-letter"),
        groups=("driver-events",),
    ),
    "driver_api": Grant(writes=("tracking-positions",)),
    "tracking_api": Grant(
        reads=("tracking-updates", "tracking-positions", "series", "streams"),
        writes=("streams",),
        describes_all=True,
        groups=("tracking-api",),
    ),
    "inspector": Grant(
        reads=("tracking-updates", "series", "streams"), describes_all=True, groups=("inspector",)
    ),
    OPERATOR: Grant(reads=(ANY,), groups=(ANY,)),
}


def provision_access(admin: KafkaAccess, passwords: Mapping[str, str]) -> None:
    """Set the principals' passwords, and make their rules the only ones. Idempotent.

    Raises KafkaUnavailable.
    """
    client = AdminClient({**admin.as_librdkafka_dict(), "log_level": 2})
    credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, SCRAM_ITERATIONS)
    upsertions: list[Any] = [
        UserScramCredentialUpsertion(name, credential, password.encode())
        for name, password in passwords.items()
    ]
    wanted = {rule for name, grant in GRANTS.items() for rule in rules_of(name, grant)}
    try:
        for done in client.alter_user_scram_credentials(
            upsertions, request_timeout=ANSWER_TIMEOUT_S
        ).values():
            done.result()
        known = set(client.describe_acls(_every_rule(), request_timeout=ANSWER_TIMEOUT_S).result())
        stale = [_exactly(rule) for rule in known - wanted]
        changes: list[Future[object]] = []
        if wanted - known:
            changes += client.create_acls(list(wanted - known)).values()
        if stale:
            changes += client.delete_acls(stale).values()
        for change in changes:
            change.result(ANSWER_TIMEOUT_S)
    except KafkaException as exc:
        raise KafkaUnavailable(f"Kafka at {admin} did not take the access rules: {exc}") from exc


def rules_of(name: str, grant: Grant) -> list[AclBinding]:
    """Return the access rules of one principal."""
    read, write = AclOperation.READ, AclOperation.WRITE
    rules = [_rule(name, ResourceType.TOPIC, topic, read) for topic in grant.reads]
    rules += [_rule(name, ResourceType.TOPIC, topic, write) for topic in grant.writes]
    if grant.describes_all:
        kinds = (ResourceType.TOPIC, ResourceType.GROUP)
        rules += [_rule(name, kind, ANY, AclOperation.DESCRIBE) for kind in kinds]
    # Kafka implies Describe from Read and Write
    return rules + [_rule(name, ResourceType.GROUP, group, read) for group in grant.groups]


def _rule(name: str, kind: ResourceType, resource: str, operation: AclOperation) -> AclBinding:
    is_prefix = kind == ResourceType.GROUP and resource != ANY
    pattern = ResourcePatternType.PREFIXED if is_prefix else ResourcePatternType.LITERAL
    principal = f"User:{name}"
    return AclBinding(kind, resource, pattern, principal, "*", operation, AclPermissionType.ALLOW)


def _every_rule() -> AclBindingFilter:
    return AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type]
        ResourcePatternType.ANY,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def _exactly(rule: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        rule.restype,
        rule.name,
        rule.resource_pattern_type,
        rule.principal,
        rule.host,
        rule.operation,
        rule.permission_type,
    )
