"""The AsyncAPI document, read for tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT: dict[str, Any] = yaml.safe_load(
    (ROOT / "docs" / "reference" / "asyncapi.yaml").read_text(encoding="utf-8")
)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]


@cache
def validator(name: str) -> Any:
    """A validator of one schema, with the document's others beside it."""
    return jsonschema_rs.Draft7Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    )


def assert_valid(name: str, value: object) -> None:
    complaints = [str(one) for one in validator(name).iter_errors(value)]
    assert complaints == [], name


def fields_of(name: str) -> set[str]:
    return set(SCHEMAS[name]["properties"])


def titles_of(name: str) -> list[str]:
    """The columns of a row."""
    return [column["title"] for column in SCHEMAS[name]["items"]]


def channels_of(server: str) -> dict[str, Any]:
    """The channels of one server, by address."""
    ref = {"$ref": f"#/servers/{server}"}
    return {one["address"]: one for one in DOCUMENT["channels"].values() if ref in one["servers"]}


def examples_of(message: str) -> Iterator[Any]:
    for example in MESSAGES[message]["examples"]:
        yield example["payload"]


def payloads_of(message: str) -> list[bytes]:
    return [json.dumps(one).encode() for one in examples_of(message)]


class KafkaMessage:
    """What confluent-kafka's message has."""

    def __init__(self, topic: str, value: bytes, key: bytes | None = None) -> None:
        self._topic, self._value, self._key = topic, value, key

    def topic(self) -> str:
        return self._topic

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def error(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0
