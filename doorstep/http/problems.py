"""Every error of the HTTP services as one problem document (RFC 9457).

A DoorstepError has its status, slug and data; here they become an answer. Nothing of the request is
repeated in it, so no input can break the answer or be injected into a page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from doorstep.errors import DoorstepError, TooManyRequests, Unauthenticated, Unavailable
from doorstep.telemetry import get_logger

MEDIA_TYPE = "application/problem+json"

# pydantic's error types -> reason codes of the contract; others are `invalid_value`
_REASONS = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "finite_number": "not_finite",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "string_pattern_mismatch": "bad_id",
    "uuid_parsing": "bad_id",
    "uuid_type": "bad_id",
    "string_too_long": "too_long",
    "string_too_short": "empty",
    "timezone_aware": "no_time_zone",
    "datetime_from_date_parsing": "bad_instant",
    "datetime_parsing": "bad_instant",
}


class UnusableRequest(DoorstepError):
    """The request is invalid.

    `errors` lists each complaint: `loc` (where), `msg` (text) and `reason` (a code).
    """

    status = 422
    problem = "unusable-request"

    def __init__(self, errors: Sequence[Mapping[str, object]]) -> None:
        self.errors = [dict(error) for error in errors]
        first = self.errors[0] if self.errors else {}
        super().__init__(f"{first.get('loc', 'the request')}: {first.get('msg', 'unusable')}")

    @property
    def reason(self) -> object:
        """The first complaint's reason."""
        return self.errors[0]["reason"] if self.errors else "invalid_value"

    def members(self) -> dict[str, object]:
        return {"reason": self.reason, "errors": self.errors}


def complaints(errors: Sequence[Any]) -> list[dict[str, object]]:
    """Convert pydantic's errors to complaints, without the input itself."""
    return [
        {
            "loc": ".".join(str(part) for part in error["loc"]) or "body",
            "msg": str(error["msg"]),
            "reason": reason_of(str(error["type"])),
        }
        for error in errors[:20]
    ]


def reason_of(kind: str) -> str:
    """Return the reason code for a type of pydantic error."""
    if kind in _REASONS:
        return _REASONS[kind]
    if kind.endswith(("_type", "_parsing", "_from_float")):
        return "wrong_type"
    return "invalid_value"


def problem_response(error: DoorstepError) -> Response:
    """Return the answer for an error."""
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return _respond(error.status, error.problem, error.title, str(error), error.members(), headers)


def respond_to(error: DoorstepError) -> Response:
    """Return the answer for an error, and log a defect."""
    if error.status >= 500 and not isinstance(error, Unavailable):
        get_logger().error("unforeseen_error", error=repr(error))
    return problem_response(error)


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of an application a problem document, the framework's own included."""

    async def on_doorstep_error(_: Request, exc: DoorstepError) -> Response:
        return respond_to(exc)

    async def on_validation_error(_: Request, exc: RequestValidationError) -> Response:
        return problem_response(UnusableRequest(complaints(exc.errors())))

    async def on_http_exception(request: Request, exc: HTTPException) -> Response:
        phrase = HTTPStatus(exc.status_code).phrase
        slug = phrase.lower().replace(" ", "-")
        headers = dict(exc.headers or {})
        if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods_of(app, request))
        return _respond(exc.status_code, slug, phrase, str(exc.detail), {}, headers)

    async def on_defect(request: Request, exc: Exception) -> Response:
        get_logger().error("defect", error=type(exc).__name__, method=request.method)
        phrase = HTTPStatus.INTERNAL_SERVER_ERROR.phrase
        return _respond(500, "internal", phrase, "A defect in Doorstep; it was logged.", {}, {})

    app.exception_handler(DoorstepError)(on_doorstep_error)
    app.exception_handler(RequestValidationError)(on_validation_error)
    app.exception_handler(HTTPException)(on_http_exception)
    app.exception_handler(Exception)(on_defect)


def _methods_of(app: FastAPI, request: Request) -> list[str]:
    """Return the methods of a path over all its routes."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in app.router.routes
        )
    ]


def _respond(
    status: int,
    slug: str,
    title: str,
    detail: str,
    members: Mapping[str, object],
    headers: Mapping[str, str],
) -> Response:
    document = {
        "type": f"/problems/{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(
        json.dumps(document, default=str),  # ASCII: even a lone surrogate comes out escaped
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **headers},
    )
