"""Readiness probes. Each returns within seconds and never raises."""

from __future__ import annotations

import http.client
import json
import socket

from doorstep import mqtt_packets
from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.topic_specs import missing_topics
from doorstep.settings import Bind
from ops.stack.addresses import reach

PROBE_TIMEOUT_S = 2.0


def listens(bind: Bind) -> bool:
    """Return whether a server accepts TCP connections at an address."""
    at = reach(bind)
    try:
        with socket.create_connection((at.host, at.port), PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def kafka_is_ready(bind: Bind, kafka: KafkaAccess) -> bool:
    """Return whether the broker answers and has every topic."""
    return listens(bind) and not missing_topics(kafka, PROBE_TIMEOUT_S)


def mqtt_accepts(bind: Bind, username: str, password: str) -> bool:
    """Return whether a broker accepts a user's CONNECT (MQTT 3.1.1, clean session)."""
    at = reach(bind)
    try:
        with socket.create_connection((at.host, at.port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(mqtt_packets.connect(username, password, keepalive_s=10))
            answer = connection.recv(4)
            connection.sendall(mqtt_packets.DISCONNECT_PACKET)
    except OSError:
        return False
    return answer == mqtt_packets.ACCEPTED_PACKET


def service_is_ready(bind: Bind) -> tuple[bool, str]:
    """Request a service's /readyz: whether it is ready, else the reason."""
    at = reach(bind)
    connection = http.client.HTTPConnection(at.host, at.port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(65536)
    except (OSError, http.client.HTTPException):
        return False, "does not answer"
    finally:
        connection.close()
    if response.status == http.client.OK:
        return True, ""
    return False, _not_ready_reason(body)


def _not_ready_reason(body: bytes) -> str:
    """Name the dependencies that are not ready by a /readyz body."""
    try:
        answer = json.loads(body)
    except ValueError:
        return "not ready"
    if not isinstance(answer, dict):
        return "not ready"
    checks = answer.get("checks", answer)
    if not isinstance(checks, dict):
        checks = answer
    missing = [name for name, ready in checks.items() if ready is False and name != "ready"]
    return "waits for " + ", ".join(missing) if missing else "not ready"
