"""Makes one attempt: a signed POST to the checked address, within a time-out."""

from __future__ import annotations

import time
from collections import OrderedDict
from uuid import UUID

import httpx

from doorstep.outbound.destination import DestinationRules, RequestFailed
from doorstep.outbound.poster import Poster
from webhooks.contact import with_contact
from webhooks.queue import Attempt, Delivery
from webhooks.retries import parse_retry_after
from webhooks.signatures import signed_headers

MAX_CLIENTS = 200  # of 100 webhooks, and addresses that were changed
KEEP_ALIVE_S = 15.0
USER_AGENT = "Doorstep-Webhooks/1"


class Sender:
    """Sends deliveries. Each webhook has connections of its own: TLS is checked for its name."""

    def __init__(self, rules: DestinationRules, timeout_s: float, concurrency: int) -> None:
        self._poster = Poster(rules, timeout_s)
        self._concurrency = concurrency
        self._clients: OrderedDict[tuple[UUID, str], httpx.AsyncClient] = OrderedDict()

    async def send(self, delivery: Delivery) -> Attempt:
        """Make an attempt; every failure is an Attempt, too."""
        body = with_contact(delivery.body, delivery.contact).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            **signed_headers(delivery.secrets, delivery.message_id, int(time.time()), body),
        }
        try:
            answer = await self._poster.post(self._client(delivery), delivery.url, headers, body)
        except RequestFailed as exc:
            return Attempt(None, str(exc))
        error = None if 200 <= answer.status < 300 else f"HTTP {answer.status}"
        return Attempt(answer.status, error, parse_retry_after(answer.retry_after))

    def _client(self, delivery: Delivery) -> httpx.AsyncClient:
        key = delivery.webhook_id, delivery.url
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = self._poster.new_client(self._concurrency, KEEP_ALIVE_S)
        self._clients.move_to_end(key)
        return client

    async def drop_idle_clients(self) -> None:
        """Close the clients that were used least recently, beyond MAX_CLIENTS."""
        while len(self._clients) > MAX_CLIENTS:
            _, client = self._clients.popitem(last=False)
            await client.aclose()

    async def close(self) -> None:
        """Close all connections."""
        self._poster.close()
        for client in self._clients.values():
            await client.aclose()
