"""What a larger fleet needs: the arithmetic, and that the docs show what it gives."""

from __future__ import annotations

from dataclasses import asdict

from bench.scaling import UNITS, needs_of, table_of
from ops.stack.settings import PROJECT

COSTS = {name: one.value for name, one in UNITS.items()}
DOCS = PROJECT / "docs"


def test_scaling__the_table_in_the_docs__is_what_the_units_give() -> None:
    fleets = (100_000, 1_000_000, 10_000_000)
    table = table_of([needs_of(drivers, 400_000, COSTS) for drivers in fleets])
    assert table in (DOCS / "scaling.md").read_text(encoding="utf-8")


def test_scaling__each_unit__is_a_guess_or_from_a_document_that_is_there() -> None:
    sources = {one.source for one in UNITS.values()} - {"guess"}
    assert sources
    assert all((PROJECT / one).exists() for one in sources)


def test_scaling__ten_times_the_drivers__is_ten_times_what_each_of_them_costs() -> None:
    small, large = (asdict(needs_of(drivers, 0, COSTS)) for drivers in (1_000_000, 10_000_000))
    for name in ("fixes_per_s", "kafka_cores", "in_bits_per_s", "kafka_bytes", "wal_bytes_per_s"):
        assert round(large[name] / small[name], 6) == 10, name


def test_scaling__known_costs__give_known_needs() -> None:
    costs = dict.fromkeys(UNITS, 0.0) | {"viewers": 1.0, "mosquitto": 24.0, "plain": 200.0}
    needs = needs_of(100_000, 0, costs)
    assert needs.fixes_per_s == 25_000
    assert needs.mqtt_brokers == 1  # 24 µs x 25,000 = 0.6 of a core, which is what is planned
    assert needs.plain_bytes_per_day == 100_000 * 8 * 3600 / 4 * 200
