"""HTTPS to public addresses only: an endpoint comes from a browser, and may name any host.

The host is resolved here, and the connection goes to the address that was checked, so that a name
cannot lead elsewhere on a second look-up. Redirects and proxies are not followed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.poolmanager import PoolManager
from urllib3.util.connection import create_connection

from doorstep.public_addresses import is_public_address

IsAllowed = Callable[[str], bool]


class _GuardedConnection(HTTPSConnection):
    is_allowed: IsAllowed = staticmethod(is_public_address)

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise NewConnectionError(self, f"cannot resolve {self.host}") from exc
        for *_, address in found:
            host = str(address[0])
            if not self.is_allowed(host):
                continue
            try:
                return create_connection(
                    (host, self.port), self.timeout, socket_options=self.socket_options
                )
            except OSError:
                continue
        raise NewConnectionError(self, f"{self.host} has no public address that answers")


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, is_allowed: IsAllowed) -> None:
        self._is_allowed = is_allowed
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        connection = type(
            "Connection", (_GuardedConnection,), {"is_allowed": staticmethod(self._is_allowed)}
        )
        pool = type("Pool", (HTTPSConnectionPool,), {"ConnectionCls": connection})
        super().init_poolmanager(*args, **options)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"https": pool}


def guarded_session(is_allowed: IsAllowed = is_public_address) -> requests.Session:
    """Return a session that reaches public addresses over HTTPS, and nothing else."""
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    session.adapters.clear()
    session.mount("https://", _GuardedAdapter(is_allowed))
    return session
