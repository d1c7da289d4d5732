"""XML from strangers as a stream of elements, read by lxml's recovering parser.

No document type, so no entities of the file's own; no network; no tree, so memory does not grow
with the file. Namespaces are dropped: an undeclared prefix in `<extensions>` is no error.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from lxml import etree

from simulators.tracks.points import UnreadableTrack
from simulators.tracks.sources import MIB, read_chunks

MAX_TEXT = 4096  # characters of one element's text; more is cut
MAX_ELEMENTS = 10_000_000  # MAX_POINTS with 20 elements each; half a minute
MAX_DEPTH = 256
MAX_SILENCE_BYTES = 4 * MIB  # of one tag or comment, which the parser keeps until its end
BREAKS_OFF = "!"  # the name of the last event if the root element was not read to its end


class XmlEvent(NamedTuple):
    """The start of an element with its attributes, or its end with its text."""

    is_start: bool
    name: str  # without namespace and prefix
    text: str
    attributes: dict[str, str]


class _Collector:
    """lxml's target: collects the events of one chunk."""

    def __init__(self) -> None:
        self.events: list[XmlEvent] = []
        self.has_doctype = False
        self.calls = 0
        self.elements = 0
        self.depth = 0
        self._text: list[str] = []
        self._length = 0

    def start(self, tag: str, attributes: Any) -> None:
        self.calls += 1
        self.elements += 1
        self.depth += 1
        names = {_local(str(name)): str(value) for name, value in attributes.items()}
        self.events.append(XmlEvent(True, _local(tag), "", names))
        self._text.clear()
        self._length = 0

    def end(self, tag: str) -> None:
        self.calls += 1
        self.depth -= 1
        text = "".join(self._text).strip()
        self.events.append(XmlEvent(False, _local(tag), text, {}))
        self._text.clear()
        self._length = 0

    def data(self, data: str) -> None:
        self.calls += 1
        if self._length < MAX_TEXT:
            self._text.append(data[: MAX_TEXT - self._length])
            self._length += len(data)

    def doctype(self, *_names: str | None) -> None:
        self.has_doctype = True

    def close(self) -> None:
        """End of the file: nothing is left to do."""


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].rpartition(":")[2]


def read_events(stream: io.BufferedReader) -> Iterator[XmlEvent]:
    """Return the file's elements. Raises UnreadableTrack for a document type, or too many.

    The last event is BREAKS_OFF if the file ends too early, or is damaged beyond recovery.
    """
    collector = _Collector()
    parser = etree.XMLParser(
        target=collector,
        recover=True,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
    )
    silent_bytes, calls = 0, 0
    for chunk in read_chunks(stream):
        parser.feed(chunk)
        yield from _take(collector)
        silent_bytes = silent_bytes + len(chunk) if collector.calls == calls else 0
        calls = collector.calls
        if silent_bytes > MAX_SILENCE_BYTES:
            break
    with suppress(etree.XMLSyntaxError):
        parser.close()
    yield from _take(collector)
    if collector.depth or not collector.elements:
        yield XmlEvent(False, BREAKS_OFF, "", {})


def _take(collector: _Collector) -> list[XmlEvent]:
    if collector.has_doctype:
        raise UnreadableTrack("it has a document type declaration, which no track needs")
    if collector.elements > MAX_ELEMENTS:
        raise UnreadableTrack(f"more than {MAX_ELEMENTS:,} elements")
    if collector.depth > MAX_DEPTH:
        raise UnreadableTrack(f"elements nested more than {MAX_DEPTH} deep")
    events, collector.events = collector.events, []
    return events
