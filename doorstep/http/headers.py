"""Security headers on every answer."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# MapLibre sets inline styles by script (which style-src does not cover), and needs blob: images
# for its tiles; its worker is a file of ours.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # a customer's link must not leak
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


# A page that needs more names it itself; all others keep what stands here.
_OWN_OF_PAGES = frozenset({b"content-security-policy", b"permissions-policy"})

_RAW_HEADERS = {name.lower().encode(): value.encode() for name, value in _HEADERS.items()}


def secured(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers with the security headers, and `no-store` as the default."""
    found = [
        (name, value)
        for name, value in headers
        if name.lower() in _OWN_OF_PAGES or name.lower() not in _RAW_HEADERS
    ]
    own = {name.lower() for name, _ in found}
    found += [(name, value) for name, value in _RAW_HEADERS.items() if name not in own]
    if not any(name.lower() == b"cache-control" for name, _ in found):
        found.append((b"cache-control", b"no-store"))
    return found


class SecurityHeaders:
    """ASGI middleware: add the headers, and `no-store` to answers without Cache-Control."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": secured(message["headers"])}
            await send(message)

        await self._app(scope, receive, send_with_headers)
