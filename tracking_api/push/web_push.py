"""Web push (RFC 8030, 8291, 8292): encrypted for the browser, signed with the stack's VAPID key."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path

import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02
from pywebpush import WebPushException, webpush

from doorstep.errors import SettingsError
from doorstep.telemetry import get_logger
from tracking_api.push.guarded_session import guarded_session
from tracking_api.push.notifier import Notification, Outcome
from tracking_api.push.texts import title_of

TIMEOUT_S = 10.0
TTL_S = {"nearby": 300, "delivered": 3600}  # a phone that comes back later gets no old news
GONE = (404, 410)


class VapidKey:
    """The key that signs requests to push services, from a file that the stack made."""

    def __init__(self, file: Path) -> None:
        """Read the key. Raises SettingsError."""
        try:
            self.private = Vapid02.from_raw(file.read_text(encoding="ascii").strip().encode())
        except (OSError, ValueError) as exc:
            raise SettingsError(f"cannot read the key in VAPID_KEY_FILE={file}: {exc}") from exc

    @property
    def public(self) -> str:
        """The public key as browsers take it (`applicationServerKey`)."""
        point = self.private.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return urlsafe_b64encode(point).rstrip(b"=").decode()


class WebPushNotifier:
    """Sends notifications to browsers' push services."""

    def __init__(
        self,
        key: VapidKey,
        contact: str,
        new_session: Callable[[], requests.Session] = guarded_session,
    ) -> None:
        """`contact` is a mailto: or https: URL, by which a push service reaches the operator."""
        self._key = key
        self._contact = contact
        self._new_session = new_session

    async def send(self, notification: Notification) -> Outcome:
        """Send in a thread."""
        return await asyncio.to_thread(partial(self._send, notification))

    def _send(self, notification: Notification) -> Outcome:
        recipient, kind = notification.recipient, notification.kind
        payload = {
            "title": title_of(kind, recipient.language),
            "tag": str(notification.order_id),
            "url": f"/t/{notification.order_id}",
            "language": recipient.language,
        }
        try:
            with self._new_session() as session:
                webpush(
                    {
                        "endpoint": recipient.endpoint,
                        "keys": {"p256dh": recipient.p256dh, "auth": recipient.auth},
                    },
                    json.dumps(payload),
                    vapid_private_key=self._key.private,
                    vapid_claims={"sub": self._contact},
                    ttl=TTL_S[kind],
                    headers={"Urgency": "high"},
                    timeout=TIMEOUT_S,
                    requests_session=session,
                )
        except WebPushException as exc:
            status = exc.response.status_code if exc.response is not None else None
            return "gone" if status in GONE else "failed"
        except (requests.RequestException, ValueError) as exc:
            get_logger().info("push_failed", reason=type(exc).__name__)
            return "failed"
        return "sent"
