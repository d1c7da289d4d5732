"""Applies the rows of a CSV in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from doorstep.administration.csv_table import MAX_ERRORS, CsvRow, check_new, complaint
from doorstep.credentials import DeviceSecrets
from doorstep.errors import DoorstepError, MalformedCsv, Unavailable

if TYPE_CHECKING:
    from tracking_api.administration.queries import Editor, Resource


@dataclass(slots=True)
class Imported:
    """What an import did: keys of rows by outcome, and the secrets of new drivers."""

    created: list[Any] = field(default_factory=list)
    changed: list[Any] = field(default_factory=list)
    unchanged: int = 0
    secrets: dict[str, DeviceSecrets] = field(default_factory=dict)


async def apply_rows(
    editor: Editor, resource: Resource, rows: Sequence[CsvRow], who: str
) -> Imported:
    """Create and change what the rows say. Raises MalformedCsv with the bad lines."""
    keys = [row.key for row in rows if row.key is not None]
    present = await editor.rows(resource, keys=keys)
    existing = {one[resource.key]: one for one in present}
    errors: list[dict[str, object]] = []
    for row in rows:
        if row.key not in existing:
            errors += check_new(resource.csv, row)
    if errors:
        raise MalformedCsv(errors[:MAX_ERRORS])
    done = Imported()
    for row in rows:
        try:
            await _apply_row(editor, resource, row, existing.get(row.key), who, done)
        except Unavailable:
            raise
        except DoorstepError as exc:
            raise MalformedCsv([complaint(row.line, None, str(exc), exc.problem)]) from exc
    return done


async def _apply_row(
    editor: Editor,
    resource: Resource,
    row: CsvRow,
    before: dict[str, Any] | None,
    who: str,
    done: Imported,
) -> None:
    if before is not None:
        values = {name: value for name, value in row.values.items() if before[name] != value}
        if not values:
            done.unchanged += 1
            return
        done.changed.append(await editor.change(resource, row.key, values, who))
    elif resource.name == "driver":
        secrets = done.secrets[row.key] = DeviceSecrets.draw("driver")
        await editor.add_driver(row.key, row.values, secrets, who)
        done.created.append(row.key)
    else:
        key_field = resource.csv.key_field
        values = row.values if key_field is None else {**row.values, key_field: row.key}
        done.created.append(await editor.create(resource, values, who))
