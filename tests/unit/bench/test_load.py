"""The load test's components: packets, schedule, routes, histogram, rate search, command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.load import device_packets
from bench.load.devices import Device, Fixes
from bench.load.fixtures import shards_of
from bench.load.generator import Generator
from bench.load.histogram import Histogram, bucket_of
from bench.load.options import LoadOptions, parse
from bench.load.plot import bars, plot
from bench.load.rate_search import PRECISION, RateSearch
from bench.load.route import MICRO_LAT_PER_M, MICRO_LON_PER_M, SPEED_MPS, DeliveryRoute, IdleRoute
from bench.load.sampler import Sample, find_saturated
from bench.load.schedule import Schedule
from doorstep import mqtt_packets
from doorstep.fix import decode_position
from doorstep.fix.value import Fix

IDLE = IdleRoute(250_000, 770_000, 90, 60_000)
DELIVERY = DeliveryRoute(250_000, 770_000, 45, 40_000, 100_000, 200_000)


def make_device(number: int = 0, of: int = 1, route: IdleRoute | DeliveryRoute = IDLE) -> Device:
    return Device(f"load-{number}", f"boot{number}", number / of, route)


def make_fixes(per_message: int = 1, began_ms: int = 1_800_000_000_000) -> tuple[Fixes, Schedule]:
    schedule = Schedule([0.0], per_message)
    schedule.start_period(began_ms, 4000, [0])
    fixes = Fixes([make_device()], schedule, per_message)
    fixes.start_ms = began_ms
    return fixes, schedule


def read_message(packet: bytes) -> tuple[str, int, list[Fix]]:
    (first, body), (_, rest) = device_packets.take_packets(packet)
    assert (first, rest) == (0x32, b"")
    topic, packet_id, payload = device_packets.read_publish(first, body)
    fixes = [one for one in decode_position(payload) if isinstance(one, Fix)]
    return topic.decode(), packet_id, fixes


# -- packets ------------------------------------------------------------------------------------


def test_message__one_fix__decodes_as_a_position() -> None:
    fixes, schedule = make_fixes()
    due_ms = schedule.due_ms(0, 7)
    topic, packet_id, (fix,) = read_message(fixes.message(0, 7, due_ms))
    assert topic == "doorstep/v1/drivers/load-0/position"
    assert (packet_id, fix.boot, fix.seq) == (7, "boot0", 7)
    assert fix.fix_at.timestamp() * 1000 == due_ms
    assert (fix.speed_mps, fix.heading_deg) == (SPEED_MPS, 90)


def test_message__resent__is_identical_but_for_its_packet_id() -> None:
    fixes, schedule = make_fixes()
    first = [fixes.message(0, number, schedule.due_ms(0, number)) for number in range(1, 90)]
    repeat = [
        fixes.repeat(0, number, (number - 1) % device_packets.FIX_IDS + 1)
        for number in range(1, 90)
    ]
    assert repeat == first
    assert fixes.message(0, 90, schedule.due_ms(0, 90)) != first[-1]


@pytest.mark.parametrize("per_message", [2, 5])
def test_message__of_several_fixes__ends_with_the_one_that_is_due(per_message: int) -> None:
    fixes, schedule = make_fixes(per_message)
    due_ms = schedule.due_ms(0, 2 * per_message)
    _, packet_id, found = read_message(fixes.message(0, 2, due_ms))
    assert packet_id == 2
    assert [one.seq for one in found] == list(range(per_message + 1, 2 * per_message + 1))
    assert found[-1].fix_at.timestamp() * 1000 == due_ms
    assert fixes.repeat(0, 2, 2) == fixes.message(0, 2, due_ms)


@pytest.mark.parametrize("size", [1, 100, 127, 128, 300, 16_383, 16_384, 70_000])
def test_position__of_any_length__reads_back(size: int) -> None:
    packet = device_packets.position(device_packets.position_topic("d"), 513, b"x" * size)
    (first, body), _ = device_packets.take_packets(packet)
    assert device_packets.read_publish(first, body)[1:] == (513, b"x" * size)


def test_take_packets__data_split_anywhere__yields_complete_packets_only() -> None:
    whole = mqtt_packets.puback(9) + device_packets.status("d", b"{}") + mqtt_packets.PINGREQ_PACKET
    for cut in range(len(whole)):
        *found, (_, rest) = device_packets.take_packets(whole[:cut])
        *later, (_, nothing) = device_packets.take_packets(rest + whole[cut:])
        assert [*found, *later] == list(device_packets.take_packets(whole))[:-1]
        assert nothing == b""


# -- schedule -----------------------------------------------------------------------------------


def test_schedule__many_devices__are_spread_evenly_over_the_interval() -> None:
    schedule = Schedule([number / 100 for number in range(100)])
    schedule.start_period(1000, 4000, [0] * 100)
    due = [schedule.due_ms(number, seq) for seq in (1, 2) for number in range(100)]
    assert {later - sooner for sooner, later in pairwise(due)} == {40}


def test_schedule__a_new_period__continues_with_the_next_seq_and_keeps_earlier_due_times() -> None:
    schedule = Schedule([0.0, 0.5])
    schedule.start_period(1000, 4000, [0, 0])
    before = [schedule.due_ms(1, seq) for seq in (1, 2, 3)]
    schedule.start_period(50_000, 1000, [2, 3])
    assert [schedule.due_ms(1, seq) for seq in (1, 2, 3)] == before == [3000, 7000, 11_000]
    assert schedule.due_ms(0, 3) == 50_000
    assert schedule.due_ms(1, 4) == 50_500
    assert schedule.due_ms(1, 5) == 51_500


def test_schedule__several_fixes_a_message__are_due_with_the_newest() -> None:
    schedule = Schedule([0.0, 0.5], 5)
    schedule.start_period(0, 4000, [0, 0])
    assert [schedule.due_ms(device, 5) for device in (0, 1)] == [16_000, 26_000]
    assert schedule.due_ms(0, 10) == 36_000


@pytest.mark.parametrize("per_message", [1, 5])
def test_schedule__round_by_round_and_seq_by_seq__are_the_same_instants(per_message: int) -> None:
    shares = [number / 700 for number in range(700)]
    schedule = Schedule(shares, per_message)
    schedule.start_period(1_800_000_000_000, 3076.923, [0] * 700)
    schedule.start_period(1_800_000_060_000, 1538.4615384, [20] * 700)
    offsets = schedule.offsets_ms()
    for number in range(20):
        due = [schedule.round_ms(number) + offset for offset in offsets]
        seq = (20 + number + 1) * per_message
        assert due == [schedule.due_ms(device, seq) for device in range(700)]


def test_shards__many_devices__hold_each_once_ordered_by_phase() -> None:
    devices = [make_device(number, 500) for number in range(500)]
    shards = [shard.devices for shard in shards_of(devices, 7)]
    assert sorted(one.driver_id for shard in shards for one in shard) == sorted(
        one.driver_id for one in devices
    )
    assert all(
        [one.share for one in shard] == sorted(one.share for one in shard) for shard in shards
    )


def test_shards__messages_of_two_sizes__are_apart() -> None:
    devices = [
        replace(make_device(number, 50), fixes_per_message=1 if number % 3 else 5)
        for number in range(50)
    ]
    shards = shards_of(devices, 2)
    assert sorted((one.broker, one.fixes_per_message) for one in shards) == [
        (0, 1), (0, 5), (1, 1), (1, 5),
    ]  # fmt: skip
    assert all(
        one.fixes_per_message == shard.fixes_per_message
        for shard in shards
        for one in shard.devices
    )


def test_options__mixed__watched_devices_send_alone_and_the_others_in_fives() -> None:
    options = parse(["--mixed", "--devices", "1000"])
    assert (options.fixes_per_message, options.watched_share) == (5, 0.15)
    assert options.mean_fixes_per_message == pytest.approx(3.125)
    assert parse([]).mean_fixes_per_message == 1


# -- routes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [IDLE, DELIVERY])
def test_route__all_legs__never_exceeds_its_speed(route: IdleRoute | DeliveryRoute) -> None:
    def at(ms: float) -> tuple[float, float]:
        leg = route.leg_at(ms)
        assert leg.until_ms > ms
        return leg.lon_micro + leg.lon_per_ms * ms, leg.lat_micro + leg.lat_per_ms * ms

    places = [at(ms) for ms in range(0, 400_000, 500)]
    for (lon, lat), (next_lon, next_lat) in pairwise(places):
        metres = math.hypot((next_lon - lon) / MICRO_LON_PER_M, (next_lat - lat) / MICRO_LAT_PER_M)
        assert metres <= SPEED_MPS * 0.5 + 0.01


def test_delivery_route__after_arrival__stops_at_its_destination() -> None:
    leg = DELIVERY.leg_at(70_000)
    assert (leg.lon_micro, leg.lat_micro, leg.until_ms) == (250_000, 770_000, 100_000)


def test_device__as_json__survives_a_round_trip() -> None:
    for route in (IDLE, DELIVERY):
        device = make_device(3, 9, route)
        assert Device.from_json(json.loads(json.dumps(device.as_json()))) == device


# -- the ledger of a generator ------------------------------------------------------------------


@pytest.fixture
def generator(tmp_path: Path) -> Generator:
    """One device, not connected."""
    key_file = tmp_path / "key"
    key_file.write_text("00" * 32 + "\n")
    plan: dict[str, Any] = {
        "devices": [make_device().as_json()],
        "host": "127.0.0.1",
        "port": 1,
        "sources": ["127.0.0.2"],
        "fleet_key_file": str(key_file),
        "folder": str(tmp_path),
        "fixes_per_message": 1,
    }
    found = Generator(plan, lambda _line: None)
    found.schedule.start_period(0, 1000, [0])
    found.generated[0] = 5
    return found


def test_generator__pubacks_out_of_order__counts_each(generator: Generator) -> None:
    for packet_id in (1, 3, 4):
        generator.on_puback(0, packet_id)
    assert generator.acked == [1]
    generator.on_puback(0, 2)
    assert generator.acked == [4]
    assert generator.stats()["pubacks"] == 4


def test_generator__a_puback_of_nothing_published__counts_none(generator: Generator) -> None:
    generator.on_puback(0, 9)
    generator.on_puback(0, device_packets.STATUS_ID)
    assert generator.acked == [0]
    assert not generator.acked_beyond.get(0)


# -- statistics----------------------------------------------------------------------------------


def test_histogram__percentiles__are_within_two_percent() -> None:
    histogram = Histogram()
    for ms in range(1, 1001):
        histogram.add(ms)
    assert histogram.percentile(0.5) == pytest.approx(500, rel=0.02)
    assert histogram.percentile(0.99) == pytest.approx(990, rel=0.02)
    assert histogram.summary()["max"] == pytest.approx(1000, rel=0.02)


def test_histogram__merged__equals_one_with_all_latencies() -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for ms in (0.001, 0.5, 7.0, 7.0, 800.0):
        one.add(ms)
        both.add(ms)
    for ms in (3.0, 7.0):
        other.add(ms)
        both.add(ms)
    one.merge(json.loads(json.dumps(list(other.counts.items()))))
    assert one.counts == both.counts
    assert bucket_of(-5.0) == bucket_of(0.0)
    assert Histogram().summary() == {"p50": None, "p95": None, "p99": None, "max": None}


def test_rate_search__a_capacity__converges_just_below_it() -> None:
    for capacity in (300.0, 1000.0, 1300.0, 7777.0):
        search = RateSearch(1000.0)
        while not search.is_done:
            search.record(search.rate_per_s <= capacity)
        assert search.sustained <= capacity < search.unsustained
        assert search.unsustained <= search.sustained * PRECISION


def make_sample(second: int, **values: float) -> Sample:
    return Sample(
        **{
            "at_s": float(second),
            "connected": 1,
            "published": 0,
            "pubacks": 0,
            "committed": 0,
            "lag_ms": 0.0,
            "at_broker": 0,
            "at_bridge": 0,
            "in_kafka": 0,
            "puback_p99_ms": None,
            **values,
        }  # type: ignore[arg-type]
    )


def test_find_saturated__a_growing_backlog__is_named() -> None:
    samples = [make_sample(second, in_kafka=500 * second) for second in range(10)]
    (found,) = find_saturated(samples, 1000.0, {"bridge": 0.5}, 0.6)
    assert "driver-pos" in found
    assert "500" in found


def test_find_saturated__a_busy_core_and_a_late_generator__are_named() -> None:
    samples = [make_sample(second, lag_ms=900.0) for second in range(10)]
    found = find_saturated(samples, 1000.0, {"driver_events": 0.97, "bridge": 0.5}, 0.6)
    assert [one.split(":")[0] for one in found] == ["driver_events", "the generators"]


def test_find_saturated__nothing_grows__is_empty() -> None:
    samples = [make_sample(second, in_kafka=100 + second % 2) for second in range(10)]
    assert find_saturated(samples, 1000.0, {"bridge": 0.5}, 0.6) == []


def test_plot__any_values__is_well_formed() -> None:
    from xml.etree import ElementTree

    for lines in ([], [("none", [])], [("one", [(0.0, 0.0), (1.0, 5.0)])]):
        assert ElementTree.fromstring(f"<svg>{plot(0, 'a & b', lines)}</svg>").tag == "svg"
    chart = ElementTree.fromstring(f"<svg>{bars(1, 'c < d', {'x': 0.0, 'y': 2.5})}</svg>")
    assert "c < d" in "".join(chart.itertext())


# -- the command line ---------------------------------------------------------------------------


def test_parse__no_arguments__runs_for_less_than_20_s() -> None:
    options = parse([])
    assert options == LoadOptions()
    assert options.warm_up_s + options.duration_s < 20


def test_parse__100_000_devices__gets_seven_brokers() -> None:
    options = parse(["--devices", "100000", "--interval", "2"])
    assert (options.brokers, options.rate_per_s) == (7, 50_000)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--devices", "0"], "0 is not between 1 and 1e+06"),
        (["--devices", "many"], "'many' is not a whole number"),
        (["--interval", "nan"], "nan is not between"),
        (["--duration", "1"], "--duration"),
        (["--devices", "40000", "--brokers", "2"], "2 can't hold 40,000 connections"),
        (["--devices", "2", "--brokers", "3"], "more than there are devices"),
        (["--assigned", "0"], "there is no order to watch"),
        (["--report", "/nowhere/at/all.json"], "there is no folder"),
        (["--report", "load.svg"], ".svg is used for the plot"),
        (["--faster"], "unrecognized arguments: --faster"),
    ],
)
def test_parse__an_invalid_argument__exits_with_its_name(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(argv)
    assert exit_info.value.code == 2
    assert complaint in capsys.readouterr().err
