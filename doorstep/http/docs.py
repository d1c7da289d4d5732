"""/docs: the OpenAPI document as one static page, without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse, Response

STYLE = """
:root { color-scheme: light dark; --line: #dde2e8; --soft: #5d6b7a; --ground: #f4f5f7;
  font: 15px/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  :root { --line: #2c3744; --soft: #97a5b5; --ground: #1a222d; }
}
body { max-width: 56rem; margin: 2rem auto; padding: 0 1.2rem; }
h2 { margin-top: 2.5rem; text-transform: capitalize; }
details { border: 1px solid var(--line); border-radius: .6rem; margin: .6rem 0;
  padding: .6rem 1rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4rem; }
summary code { font-weight: 600; }
pre { background: var(--ground); padding: .8rem; border-radius: .5rem; overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { font-family: ui-monospace, monospace; }
dd { margin: 0; color: var(--soft); }
"""


def docs_routes(app: FastAPI) -> APIRouter:
    """Return the routes of an application's /docs page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def get_docs() -> HTMLResponse:
        return HTMLResponse("".join(_page(app.openapi())))

    @router.get("/docs.css")
    async def get_style() -> Response:
        return Response(STYLE, media_type="text/css", headers={"Cache-Control": "no-cache"})

    return router


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    title = escape(document["info"]["title"])
    yield "<!doctype html><html lang='en'><meta charset='utf-8'>"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    yield f"<title>{title}</title><link rel='stylesheet' href='/docs.css'>"
    yield f"<h1>{title}</h1><p>{escape(document['info'].get('summary', ''))} "
    yield "The same for programs: <a href='/openapi.json'>openapi.json</a> (OpenAPI 3.1). "
    yield "A token goes into <code>Authorization: Bearer …</code>; every error is a problem "
    yield "document (RFC 9457).</p>"
    for tag, group in groupby(_operations(document), key=lambda found: found[0]):
        yield f"<h2>{escape(tag)}</h2>"
        for _, path, method, operation in group:
            yield from _operation(path, method, operation)


def _operations(document: Mapping[str, Any]) -> list[tuple[str, str, str, Mapping[str, Any]]]:
    found = [
        (str(operation.get("tags", ["other"])[0]), path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return sorted(found, key=lambda one: one[:3])


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> — "
    yield f"{escape(operation.get('summary', ''))}</summary>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<h4>Parameters</h4><dl>"
        for parameter in parameters:
            needed = "required" if parameter.get("required") else "optional"
            about = parameter.get("description") or _type(parameter.get("schema", {}))
            yield f"<dt>{escape(parameter['name'])}</dt>"
            yield f"<dd>{escape(parameter['in'])}, {needed}. {escape(about)}</dd>"
        yield "</dl>"
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for example in content.get("examples", {}).values():
            text = json.dumps(example["value"], indent=2, ensure_ascii=False)
            yield f"<h4>Body</h4><pre>{escape(text)}</pre>"
    yield "<h4>Answers</h4><dl>"
    for status, answer in operation["responses"].items():
        yield f"<dt>{escape(status)}</dt><dd>{escape(answer['description'])}</dd>"
    yield "</dl></details>"


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"] if part.get("type") != "null")
    return str(schema.get("format") or schema.get("type") or schema.get("title") or "")
