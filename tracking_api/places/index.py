"""The streets and addresses of one city, found by the beginnings of their words. Pure but for load.

A city's folder has streets; one made by `./run city add` also has the house numbers of its extract.
"""

from __future__ import annotations

import csv
import gzip
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from data.cities import CityFolder
from doorstep.geo import Place, distance_m

MAX_QUERY_WORDS = 8
SAME_STREET_M = 800.0  # parts of a street of one name that are nearer than this are one street
_WORDS = re.compile(r"[^\W_]+")
_HOUSE_NUMBER = re.compile(r"\d+\s?[a-z]?(?:[/-]\d*[a-z]*)?", re.IGNORECASE)

Precision = Literal["address", "street"]


class FoundPlace(NamedTuple):
    """A place in a city. `street`: the middle of a street; the house number is not known."""

    name: str
    place: Place
    precision: Precision


@dataclass(frozen=True, slots=True)
class Street:
    """A street with its middle, and its house numbers where they are known."""

    name: str
    middle: Place
    numbers: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlaceIndex:
    """The streets of one city."""

    streets: Sequence[tuple[tuple[str, ...], Street]]  # each with the words of its name

    def find(self, text: str, limit: int) -> list[FoundPlace]:
        """Find streets, and addresses where the text ends in a house number, the best first."""
        words = words_of(text)[:MAX_QUERY_WORDS]
        if not words:
            return []
        exact = list(self._streets_of(words, limit))
        if exact:
            return [FoundPlace(one.name, one.middle, "street") for one in exact]
        name, number = _split_house_number(text)
        if number is None:
            return []
        found = []
        for street in self._streets_of(words_of(name), limit):
            place = street.numbers.get(number.replace(" ", "").lower())
            if place is not None:
                found.append(FoundPlace(f"{street.name} {number}", place, "address"))
            else:
                found.append(FoundPlace(f"{street.name} {number}", street.middle, "street"))
        return sorted(found, key=lambda one: one.precision != "address")

    def _streets_of(self, wanted: Sequence[str], limit: int) -> Iterator[Street]:
        matches = (
            (_rank(wanted, words), len(street.name), street.name, n)
            for n, (words, street) in enumerate(self.streets)
            if wanted and all(any(one.startswith(part) for one in words) for part in wanted)
        )
        for *_, n in sorted(matches)[:limit]:
            yield self.streets[n][1]


def _rank(wanted: Sequence[str], words: Sequence[str]) -> int:
    """The number of wanted words that are only the beginning of a word."""
    return sum(part not in words for part in wanted)


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return tuple(_WORDS.findall("".join(one for one in plain if not unicodedata.combining(one))))


def _split_house_number(text: str) -> tuple[str, str | None]:
    """Split "Via Roma 12", "Via Roma, 12/a" or "12 Rue de Lyon"."""
    parts = text.replace(",", " ").split()
    for number, rest in ((parts[-1:], parts[:-1]), (parts[:1], parts[1:])):
        if number and rest and _HOUSE_NUMBER.fullmatch(number[0]):
            return " ".join(rest), number[0]
    return text, None


def load_places(city: CityFolder) -> PlaceIndex:
    """Read a city's streets and addresses: 0.15 s of CPU for Florence."""
    with gzip.open(city.road_nodes, "rt", encoding="utf-8", newline="") as file:
        nodes = {
            row["node_id"]: (float(row["lon"]), float(row["lat"])) for row in csv.DictReader(file)
        }
    edges: dict[str, list[Place]] = defaultdict(list)
    with gzip.open(city.road_edges, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            start, end = nodes.get(row["u"]), nodes.get(row["v"])
            if row["name"] and start and end:
                edges[row["name"]].append(_middle(start, end))
    numbers = _read_numbers(city)
    streets = [
        Street(name, middle, numbers.get(name, {}))
        for name, places in edges.items()
        for middle in _middles(places)
    ]
    known = set(edges)
    streets += [
        Street(name, _central(list(places.values())), places)
        for name, places in numbers.items()
        if name not in known
    ]
    return PlaceIndex([(words_of(one.name), one) for one in streets])


def _read_numbers(city: CityFolder) -> dict[str, dict[str, Place]]:
    numbers: dict[str, dict[str, Place]] = defaultdict(dict)
    if city.addresses.exists():
        with gzip.open(city.addresses, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                number = row["housenumber"].replace(" ", "").lower()
                numbers[row["street"]][number] = float(row["lon"]), float(row["lat"])
    return numbers


def _middle(a: Place, b: Place) -> Place:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _middles(places: Iterable[Place]) -> Iterator[Place]:
    """The central place of each street among the parts that have one name."""
    groups: list[list[Place]] = []
    for place in sorted(places):
        near = [one for one in groups if any(distance_m(place, it) < SAME_STREET_M for it in one)]
        merged = [place, *(it for one in near for it in one)]
        groups = [one for one in groups if not any(one is it for it in near)] + [merged]
    for group in groups:
        yield _central(group)


def _central(places: Sequence[Place]) -> Place:
    """The one of these places that is nearest to their mean."""
    mean = sum(lon for lon, _ in places) / len(places), sum(lat for _, lat in places) / len(places)
    return min(places, key=lambda one: distance_m(one, mean))
