"""Is a part ready? Each probe answers within seconds and never raises."""

from __future__ import annotations

import http.client
import json
import socket
import struct

from doorstep.kafka.topic_specs import missing_topics
from doorstep.settings import Bind
from ops.stack.addresses import reach

PROBE_TIMEOUT_S = 2.0
CONNACK = 0x20
ACCEPTED = 0


def listens(bind: Bind) -> bool:
    """Say whether something accepts connections there."""
    at = reach(bind)
    try:
        with socket.create_connection((at.host, at.port), PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def kafka_is_ready(bind: Bind) -> bool:
    """Say whether the broker answers and has every topic."""
    return listens(bind) and not missing_topics(str(reach(bind)), PROBE_TIMEOUT_S)


def mqtt_accepts(bind: Bind, username: str, password: str) -> bool:
    """Say whether a broker lets this user in: a CONNECT (3.1.1, clean session) and its CONNACK."""
    at = reach(bind)
    texts = [text.encode() for text in (username, username, password)]  # client id, user, password
    payload = b"".join(struct.pack("!H", len(text)) + text for text in texts)
    head = struct.pack("!H4sBBH", 4, b"MQTT", 4, 0b1100_0010, 10)
    body = head + payload
    packet = bytes([0x10]) + _variable_length(len(body)) + body
    try:
        with socket.create_connection((at.host, at.port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(packet)
            answer = connection.recv(4)
            connection.sendall(b"\xe0\x00")  # DISCONNECT
    except OSError:
        return False
    return len(answer) == 4 and answer[0] == CONNACK and answer[3] == ACCEPTED


def service_is_ready(bind: Bind) -> tuple[bool, str]:
    """Ask a service's /readyz; the text names what it waits for."""
    at = reach(bind)
    connection = http.client.HTTPConnection(at.host, at.port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(65536)
    except (OSError, http.client.HTTPException):
        return False, "not answering"
    finally:
        connection.close()
    if response.status == http.client.OK:
        return True, ""
    return False, _waits_for(body)


def _waits_for(body: bytes) -> str:
    """Name the dependencies that a /readyz body calls not ready."""
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


def _variable_length(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded)
