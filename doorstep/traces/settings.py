"""The settings of traces, shared by the services that write spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from doorstep.settings import ServiceSettings

if TYPE_CHECKING:
    from doorstep.traces.exporter import SpanWriter


class TraceSettings(ServiceSettings):
    """Where spans go, and of which share of the fixes."""

    traces_endpoint: str = ""
    traces_share: float = Field(default=0.01, ge=0, le=1)

    @field_validator("traces_endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @property
    def has_traces(self) -> bool:
        """Whether spans are written at all."""
        return bool(self.traces_endpoint) and self.traces_share > 0

    def open_spans(self, service: str) -> SpanWriter | None:
        """Return a writer of a service's spans. OpenTelemetry is imported only if traces are on."""
        if not self.has_traces:
            return None
        from doorstep.traces.exporter import SpanWriter

        return SpanWriter(self.traces_endpoint, service)
