"""docs/reference/settings.md says what the settings classes say: every variable and its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from bridge.settings import BridgeSettings
from device.settings import DeviceSettings
from doorstep.http.serve import HttpSettings
from doorstep.kafka.access import KafkaSettings
from doorstep.settings import ListenerSettings, ServiceSettings
from doorstep.traces.settings import TraceSettings
from driver_api.settings import Settings as DriverApiSettings
from driver_events.settings import DriverEventsSettings
from ops.commands.settings import OperatorSettings
from ops.stack.settings import PROJECT, StackSettings
from tracking_api.settings import Settings as TrackingApiSettings
from webhooks.settings import WebhooksSettings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "settings.md"

# What several of the others inherit, in tables of their own.
SHARED: dict[str, type[ServiceSettings]] = {
    "Kafka": KafkaSettings,
    "Traces": TraceSettings,
    "Listeners": ListenerSettings,
    "HTTP": HttpSettings,
}
CLASSES: dict[str, type[ServiceSettings]] = {
    **SHARED,
    "bridge": BridgeSettings,
    "driver_events": DriverEventsSettings,
    "driver_api": DriverApiSettings,
    "tracking_api": TrackingApiSettings,
    "webhooks": WebhooksSettings,
    "simulators": DeviceSettings,
    "operate": OperatorSettings,
    "stack": StackSettings,
}


def table_of(section: str) -> dict[str, str]:
    """The page's variables of one service, with the default as written."""
    body = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"`([A-Z_]+)=(.*?)`", body))


def default_of(value: object) -> str:
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr):
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(
        value.relative_to(PROJECT) if isinstance(value, Path) and value.is_absolute() else value
    )


@pytest.mark.parametrize("section", CLASSES)
def test_settings_page__variables_and_defaults__are_the_classes_own(section: str) -> None:
    fields = CLASSES[section].model_fields
    tables = [table_of(section)]
    tables += [
        table_of(name)
        for name, shared in SHARED.items()
        if name != section and issubclass(CLASSES[section], shared)
    ]
    found = {name: default for table in tables for name, default in table.items()}
    assert len(found) == sum(map(len, tables))
    assert found == {name.upper(): default_of(field.default) for name, field in fields.items()}


def test_settings_page__sections__one_for_each_class() -> None:
    sections = re.findall(r"^## (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == list(CLASSES)
