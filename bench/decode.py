"""CPU time of decoding a fix: in batches, compared with json.loads and pydantic one by one.

    python -m bench.decode [--fixes 50000] [--runs 5]

Ours is what driver_events uses: `decode_many`, 500 payloads at once, with every check of the
contract (duplicate keys, ranges, instants). The others: json.loads and a pydantic model of the same
fields and ranges; pydantic's JSON parser; and our `decode_position`, payload by payload. Measures
the CPU time of this process. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

from pydantic import AwareDatetime, BaseModel, Field

from bench.devices import make_fix
from bench.measure import Measurements, report
from doorstep.fix import ID_PATTERN, MAX_SEQ, decode_many, decode_position, encode_fix

CONCURRENCY = 500  # as in driver_events/batch.py


class PlainFix(BaseModel):
    """A fix as a pydantic model."""

    boot: str = Field(pattern=f"^{ID_PATTERN}$")
    seq: int = Field(ge=1, le=MAX_SEQ)
    fix_at: AwareDatetime
    lat_deg: float = Field(ge=-90, le=90)
    lon_deg: float = Field(ge=-180, le=180)
    accuracy_m: float | None = Field(default=None, ge=0, le=1e6)
    speed_mps: float | None = Field(default=None, ge=0, le=500)
    heading_deg: float | None = Field(default=None, ge=0, le=360)
    altitude_m: float | None = Field(default=None, ge=-1000, le=20_000)
    battery: float | None = Field(default=None, ge=0, le=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fixes", type=int, default=50_000, help="per run and variant")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(argv)
    payloads = [encode_fix(make_fix("bench-0123456789", n + 1)) for n in range(options.fixes)]
    variants: dict[str, Callable[[Sequence[bytes]], Sequence[object]]] = {
        "decode_many": _decode_batches,
        "json.loads + pydantic": lambda all_: [PlainFix(**json.loads(one)) for one in all_],
        "pydantic's JSON": lambda all_: [PlainFix.model_validate_json(one) for one in all_],
        "decode_position": lambda all_: [decode_position(one) for one in all_],
    }
    measurements = Measurements("decode", "µs of CPU per fix", list(variants))
    for run in range(options.runs + 1):  # the first one is a warm-up
        for variant, read in variants.items():
            spent = _cpu_s(read, payloads)
            if run:
                measurements.add(variant, spent / len(payloads) * 1e6)
    return report(measurements)


def _decode_batches(payloads: Sequence[bytes]) -> list[object]:
    read: list[object] = []
    for at in range(0, len(payloads), CONCURRENCY):
        fixes = decode_many(payloads[at : at + CONCURRENCY])
        assert fixes is not None, "every payload is valid"
        read += fixes.values
    return read


def _cpu_s(read: Callable[[Sequence[bytes]], Sequence[object]], payloads: Sequence[bytes]) -> float:
    before = time.process_time()
    found = read(payloads)
    spent = time.process_time() - before
    assert len(found) == len(payloads)
    return spent


if __name__ == "__main__":
    sys.exit(main())
