"""Ask the service of this container whether it is ready: `python -m doorstep.healthcheck`.

The image's health check. SERVICE names the service, and its own bind setting (BRIDGE_BIND for
`bridge`) says where it listens. Nothing but the standard library, so that a check costs little.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

ANSWER_TIMEOUT_S = 4.0  # below the health check's own 5 s


def ready_port(environment: Mapping[str, str]) -> int:
    """Find the port on which the container's service answers /readyz. Raises ValueError."""
    service = environment.get("SERVICE", "")
    variable = f"{service.upper()}_BIND"
    port = environment.get(variable, "").rpartition(":")[2]
    if not service or not port.isdecimal():
        raise ValueError(f"SERVICE={service!r}: {variable} has no port")
    return int(port)


def is_ready(port: int) -> bool:
    """Ask /readyz. No answer is a no."""
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read(2000).decode("utf-8", "replace"))  # kept in the engine's health log
        return answer.status == 200
    except (OSError, HTTPException) as exc:
        print(f"no answer: {exc}")
        return False
    finally:
        connection.close()


def main() -> int:
    """Exit 0 if ready, 1 if not."""
    try:
        return 0 if is_ready(ready_port(os.environ)) else 1
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
