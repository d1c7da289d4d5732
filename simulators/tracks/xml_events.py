"""XML from strangers as a stream of elements, read by lxml's recovering parser.

No document type, so no entities of the file's own; no network; no tree, so memory does not grow
with the file. Namespaces are dropped: an undeclared prefix in `<extensions>` is no error.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

from lxml import etree

from simulators.tracks.points import UnreadableTrack
from simulators.tracks.sources import read_chunks

MAX_TEXT = 4096  # characters of one element's text; more is cut


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
        self._text: list[str] = []
        self._length = 0

    def start(self, tag: str, attributes: Any) -> None:
        names = {_local(str(name)): str(value) for name, value in attributes.items()}
        self.events.append(XmlEvent(True, _local(tag), "", names))
        self._text.clear()
        self._length = 0

    def end(self, tag: str) -> None:
        text = "".join(self._text).strip()
        self.events.append(XmlEvent(False, _local(tag), text, {}))
        self._text.clear()
        self._length = 0

    def data(self, data: str) -> None:
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
    """Return the file's elements. Raises UnreadableTrack for a document type.

    What follows a fatal error is not read. An element that the end of the file cuts is left out.
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
    tail = b""
    for chunk in read_chunks(stream):
        parser.feed(chunk)
        yield from _take(collector)
        tail = chunk.rstrip()[-1:] or tail
    try:
        parser.close()
    except etree.XMLSyntaxError:
        return
    if tail == b">":  # else the last element's text may be cut
        yield from _take(collector)


def _take(collector: _Collector) -> list[XmlEvent]:
    if collector.has_doctype:
        raise UnreadableTrack("it has a document type declaration, which no track needs")
    events, collector.events = collector.events, []
    return events
