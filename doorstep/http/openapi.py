"""OpenAPI 3.1 with problem documents, and with bodies that `strict_json` parses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Header, Path
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

from doorstep.fix.value import ID_PATTERN
from doorstep.http.problems import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]

_SCHEMAS = "#/components/schemas/"
_WHAT = {
    400: "The request cannot be parsed.",
    401: "No token, or an unknown one.",
    403: "A valid token without this permission.",
    404: "Not found; the same for every bad customer's link.",
    409: "Not possible in the current state; see `current_state` and `allowed`.",
    413: "The body has more than 64 KiB.",
    415: "The body is not application/json.",
    422: "The request is invalid; see `reason` and `errors`.",
    429: "Too many requests; retry after `Retry-After`.",
    503: "The database is unavailable; retry after `Retry-After`.",
}
_SLUGS = {409: "illegal-transition", 422: "unusable-request", 503: "store-unavailable"}
_MEMBERS: dict[int, dict[str, object]] = {
    409: {"current_state": "delivered", "allowed": []},
    422: {
        "reason": "missing_field",
        "errors": [{"loc": "body", "msg": "Field required", "reason": "missing_field"}],
    },
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}

DriverId = Annotated[
    str, Path(pattern=f"^{ID_PATTERN}$", description="A driver's id.", examples=["d17"])
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="A repeat under the same key changes nothing more.",
    ),
]


class Problem(BaseModel):
    """A problem document (RFC 9457). Some types carry further members."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> Responses:
    """Document the problem answers of one route."""
    return {status: _problem(status) for status in sorted({*statuses, 422, 503})}


def _problem(status: int) -> dict[str, Any]:
    phrase = HTTPStatus(status).phrase
    example = {
        "type": f"/problems/{_SLUGS.get(status, phrase.lower().replace(' ', '-'))}",
        "title": phrase,
        "status": status,
        "detail": _WHAT[status],
        **_MEMBERS.get(status, {}),
    }
    answer: dict[str, Any] = {
        "description": _WHAT[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS + "Problem"}, "example": example}},
    }
    if status in (429, 503):
        answer["headers"] = _RETRY_AFTER
    return answer


def json_request(
    model: type[BaseModel], examples: Mapping[str, object], *, required: bool = True
) -> dict[str, Any]:
    """Document a body that `json_body(model)` or a decoder parses."""
    content = {
        "schema": {"$ref": _SCHEMAS + model.__name__},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def install_openapi(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Serve a document that also contains the schemas of `bodies`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, bodies)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        webhooks=app.webhooks.routes,
        tags=app.openapi_tags,
    )
    models: list[type[BaseModel]] = [*bodies, Problem]
    _, definitions = models_json_schema(
        [(model, "validation") for model in models],
        ref_template=_SCHEMAS + "{model}",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions.get("$defs", {}))
    return document
