"""`python -m doorstep.healthcheck`: the health check of the service images.

SERVICE names the service; its bind setting (BRIDGE_BIND for `bridge`) gives the port. Imports only
the standard library, so that a check starts fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

ANSWER_TIMEOUT_S = 4.0  # below the health check's own 5 s


def ready_port(environment: Mapping[str, str]) -> int:
    """Return the port on which the service answers /readyz. Raises ValueError."""
    service = environment.get("SERVICE", "")
    variable = f"{service.upper()}_BIND"
    port = environment.get(variable, "").rpartition(":")[2]
    if not service or not port.isdecimal():
        raise ValueError(f"SERVICE={service!r}: {variable} has no port")
    return int(port)


def is_ready(port: int) -> bool:
    """True if /readyz answers 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read(2000).decode("utf-8", "replace"))  # shown by docker inspect
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
