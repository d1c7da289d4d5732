"""The answers of /observe."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class Series(BaseModel):
    """One line of a chart. `values` belong to the instants of PanelData; null: no value."""

    label: str
    values: list[float | None]


class PanelData(BaseModel):
    """A panel's data: `at` in epoch seconds."""

    at: list[int]
    series: list[Series]


class Alert(BaseModel):
    """An alert that is pending or firing."""

    name: str
    severity: str
    state: str
    since: datetime
    summary: str


class PanelAnswer(BaseModel):
    """How to draw a panel."""

    id: str
    title: str
    unit: str
    note: str


class DashboardAnswer(BaseModel):
    """A dashboard's panels, in order."""

    id: str
    title: str
    panels: list[PanelAnswer]


class Overview(BaseModel):
    """The dashboards, and the alerts. Both are empty unless Prometheus is `up`.

    `absent`: the stack runs without monitoring.
    """

    prometheus: Literal["up", "down", "absent"]
    dashboards: list[DashboardAnswer]
    alerts: list[Alert]


class Partition(BaseModel):
    """Offsets of a partition: from `low` to before `high`, null while its leader is away.

    `leader` and `out_of_sync` are ids of nodes; a partition without a leader has -1.
    """

    partition: int
    low: int | None
    high: int | None
    leader: int
    replicas: int
    in_sync: int
    out_of_sync: list[int]


class Topic(BaseModel):
    """A topic. Its messages can be read here if `is_readable`."""

    name: str
    is_readable: bool
    partitions: list[Partition]


class GroupOffset(BaseModel):
    """How far a consumer group has come in a partition: `committed` is its next offset.

    Without one (null) it begins at the first record. `lag` is null while the end is unknown.
    """

    topic: str
    partition: int
    committed: int | None
    lag: int | None


class Group(BaseModel):
    """A consumer group, and where its offsets are kept.

    driver_events commits them with what it writes: `database`, the table kafka_offset.
    """

    name: str
    state: str
    members: int
    kept_in: Literal["kafka", "database"]
    offsets: list[GroupOffset]


class KafkaAnswer(BaseModel):
    """Kafka's nodes that are up, topics and consumer groups. Some are left out of very many."""

    nodes: list[int]
    topics: list[Topic]
    groups: list[Group]
    topics_left_out: int
    groups_left_out: int


class KafkaMessage(BaseModel):
    """A record. `value` is its start as text; `size_bytes` that of all of it."""

    partition: int
    offset: int
    at: datetime | None
    key: str
    value: str
    size_bytes: int
    headers: dict[str, str]


class KafkaMessages(BaseModel):
    """The newest records of a partition, the newest first."""

    messages: list[KafkaMessage]
