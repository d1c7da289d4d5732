"""The built pages, scripts and styles: static files, compressed when they were built."""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ENCODINGS: Final = {"br": ".br", "gzip": ".gz"}  # the better one first
HASHED: Final = re.compile(r"-[0-9A-Z]{8}\.(?:js|css|svg)$")
FOR_EVER: Final = "public, max-age=31536000, immutable"
NOT_BUILT = "The pages are not built: `npm ci && npm run build` in web builds them."


class Assets(StaticFiles):
    """The built pages, scripts and styles, compressed when they were built.

    A name with the hash of the content is cached for ever; other files are revalidated each time.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory=directory, check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with a file, as the compressed copy that the client accepts, if there is one."""
        accepted = _accepted_encodings(Headers(scope=scope).get("accept-encoding", ""))
        for encoding, suffix in ENCODINGS.items():
            if encoding not in accepted:
                continue
            with suppress(HTTPException):  # no such copy
                response = await super().get_response(path + suffix, scope)
                response.headers["Content-Encoding"] = encoding
                break
        else:
            response = await super().get_response(path, scope)
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = FOR_EVER if HASHED.search(path) else "no-cache"
        return response

    async def page(self, name: str, request: Request) -> Response:
        """Answer with a page."""
        try:
            return await self.get_response(name, request.scope)
        except HTTPException as exc:
            raise HTTPException(HTTPStatus.NOT_FOUND, NOT_BUILT) from exc


def _accepted_encodings(header: str) -> set[str]:
    """Read Accept-Encoding: the names that it does not exclude with `q=0`."""
    accepted = set()
    for one in header.lower().split(","):
        name, _, quality = one.replace(" ", "").partition(";q=")
        if quality.strip("0.") or not quality:
            accepted.add(name)
    return accepted
