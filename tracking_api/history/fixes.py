"""Past fixes of a driver: one by one, or a day's packed ones column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from tracking_api.history.chunks import Chunk, decode_chunk
from tracking_api.track.visibility import Position

FIRST_SEQ = -(2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Texts = NDArray[np.str_]


class FixKey(NamedTuple):
    """The place of a fix in its driver's history."""

    fix_at: datetime
    boot: str
    seq: int


class HistoricFix(Position, frozen=True, kw_only=False):
    """One fix of a driver's history."""

    boot: str = ""
    seq: int = 0

    @property
    def key(self) -> FixKey:
        """Its place in the history."""
        return FixKey(self.fix_at, self.boot, self.seq)


class PackedFixes(Sequence[HistoricFix]):
    """Fixes in the order of their keys. Each is built when it is taken.

    Instants are µs since the epoch; NaN stands for no value.
    """

    def __init__(
        self, instants_us: Integers, places: Floats, extras: Floats, boots: Texts, seqs: Integers
    ) -> None:
        self.instants_us = instants_us  # rows of fix_at, received_at
        self.places = places  # lon_deg, lat_deg
        self.extras = extras  # accuracy_m, speed_mps, heading_deg
        self._boots = boots
        self._seqs = seqs

    @classmethod
    def of(
        cls, chunks: Sequence[Chunk], since: datetime, until: datetime, after: FixKey
    ) -> PackedFixes:
        """Decode the fixes of chunks that are in [since, until) and after a key."""
        decoded = [decode_chunk(one) for one in chunks]
        boots = [
            np.full(len(one.seq), chunk.boot) for one, chunk in zip(decoded, chunks, strict=True)
        ]
        found = cls(
            np.concatenate([one.instants_us for one in decoded]),
            np.concatenate([one.places for one in decoded]),
            np.concatenate([one.extras for one in decoded]),
            np.concatenate(boots),
            np.concatenate([one.seq for one in decoded]),
        )
        at_us, after_us = found.instants_us[:, 0], _epoch_us(after.fix_at)
        wanted = (at_us >= _epoch_us(since)) & (at_us < _epoch_us(until))
        wanted &= (at_us > after_us) | (at_us == after_us) & (
            (found._boots > after.boot) | (found._boots == after.boot) & (found._seqs > after.seq)
        )
        found = found._take(np.flatnonzero(wanted))
        if len(chunks) == 1:
            return found
        at_us = found.instants_us[:, 0]
        return found._take(np.lexsort((found._seqs, found._boots, at_us)))

    def _take(self, which: NDArray[np.intp] | slice) -> PackedFixes:
        return PackedFixes(
            self.instants_us[which],
            self.places[which],
            self.extras[which],
            self._boots[which],
            self._seqs[which],
        )

    def __len__(self) -> int:
        return len(self._seqs)

    @overload
    def __getitem__(self, which: int) -> HistoricFix: ...

    @overload
    def __getitem__(self, which: slice) -> PackedFixes: ...

    def __getitem__(self, which: int | slice) -> HistoricFix | PackedFixes:
        if isinstance(which, slice):
            return self._take(which)
        if not -len(self) <= which < len(self):
            raise IndexError(which)
        [found] = self._take(slice(which, which + 1 or None))
        return found

    def __iter__(self) -> Iterator[HistoricFix]:
        instants = self.instants_us.astype("datetime64[us]").tolist()
        extras = values_or_none(self.extras)
        columns = zip(
            instants,
            self.places.tolist(),
            extras,
            self._boots.tolist(),
            self._seqs.tolist(),
            strict=True,
        )
        for (fix_at, received_at), (lon_deg, lat_deg), extra, boot, seq in columns:
            accuracy_m, speed_mps, heading_deg = extra
            yield HistoricFix(
                fix_at.replace(tzinfo=UTC),
                received_at.replace(tzinfo=UTC),
                lon_deg,
                lat_deg,
                accuracy_m,
                speed_mps,
                heading_deg,
                boot,
                seq,
            )


def values_or_none(values: Floats) -> list[list[float | None]]:
    """Return rows of values, with None for NaN."""
    found: list[list[float | None]] = values.tolist()
    for row in np.flatnonzero(np.isnan(values).any(axis=1)).tolist():
        found[row] = [None if one != one else one for one in found[row]]
    return found


def _epoch_us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
