"""Export and import of one resource as CSV, for admins."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from doorstep.administration.csv_table import MAX_ROWS, read_csv, write_csv
from doorstep.http.csv_body import MAX_CSV_BYTES, read_csv_body
from doorstep.http.openapi import Responses, problems
from tracking_api.administration.queries import ALL_ROWS, Resource
from tracking_api.administration.schemas import DriverSecrets, ImportAnswer
from tracking_api.context import Admin, Context

DryRun = Annotated[bool, Query(description="Check and count only: nothing is written.")]


def import_path(resource: Resource) -> str:
    """Return the address of a resource's import, which limits its body itself."""
    return f"/{resource.csv.name}/import"


def csv_routes(resource: Resource, tag: str, example: str) -> APIRouter:
    """Build the two routes of a resource."""
    routes = APIRouter(tags=[tag])
    noun = resource.csv.name.replace("-", " ")

    @routes.get(
        f"/{resource.csv.name}.csv",
        summary=f"All {noun} as CSV",
        response_class=Response,
        responses={**problems(401, 403), 200: _csv_answer(resource)},
        name=f"export_{resource.csv.name.replace('-', '_')}",
    )
    async def export_csv(request: Request, admin: Admin, context: Context) -> Response:
        """Without the retired ones. The import takes the same columns."""
        context.note_read(request, admin)
        rows = await context.stores.administration.list_rows(resource, ALL_ROWS)
        text = await asyncio.to_thread(write_csv, resource.csv, rows)
        headers = {"Content-Disposition": f'attachment; filename="{resource.csv.name}.csv"'}
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    @routes.post(
        import_path(resource),
        summary=f"Create and change {noun} from CSV",
        responses=_import_problems(),
        openapi_extra=_csv_request(example),
        name=f"import_{resource.csv.name.replace('-', '_')}",
    )
    async def import_csv(
        request: Request, admin: Admin, context: Context, dry_run: DryRun = False
    ) -> ImportAnswer:
        """All rows or none: a 422 lists the bad ones with `line` and `field`."""
        content = await read_csv_body(request)
        rows = await asyncio.to_thread(read_csv, resource.csv, content)
        store = context.stores.administration
        done = await store.import_rows(resource, rows, admin.actor_id, dry_run=dry_run)
        secrets = {} if dry_run else done.secrets
        return ImportAnswer(
            dry_run=dry_run,
            created=done.created,
            changed=done.changed,
            unchanged=done.unchanged,
            secrets=[
                DriverSecrets(driver_id=key, mqtt_password=one.mqtt_password, token=one.token)
                for key, one in secrets.items()
            ],
        )

    return routes


def _csv_request(example: str) -> dict[str, Any]:
    content = {"schema": {"type": "string"}, "examples": {"file": {"value": example}}}
    return {"requestBody": {"required": True, "content": {"text/csv": content}}}


def _csv_answer(resource: Resource) -> dict[str, Any]:
    columns = ",".join(resource.csv.columns)
    return {
        "description": f"The columns {columns}.",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": f"{columns}\r\n"}},
    }


def _import_problems() -> Responses:
    documented = problems(401, 403, 413, 415)
    documented[413]["description"] = f"The body has more than {MAX_CSV_BYTES // 1024:,} KiB."
    documented[415]["description"] = "The body is not text/csv."
    documented[422]["description"] = (
        f"The file is not such a table, or has more than {MAX_ROWS:,} rows; see `errors`."
    )
    return documented
