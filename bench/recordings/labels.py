"""Orders on recorded traces, with the evidence that each must produce, labelled by hand.

The labels were made from plots of the tracks and lists of their fixes, with knowledge of the rule
and before the database was run. A place is a span of time in seconds since the start of the trace:
the median of the usable fixes in it. An expectation is a window for `occurred_at` in those seconds.

One window was corrected afterwards, at the customer of "the way back": its first fix has a speed of
6.7 m/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Window = tuple[float, float]
NOWHERE_M = 20_000.0  # offset of a customer far from the trace


@dataclass(frozen=True, slots=True)
class Position:
    """Where the phone was between two instants of the trace, moved east by `east_m`."""

    from_s: float
    to_s: float
    east_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Label:
    """One order. `expected` is exactly what must be found.

    `passed` names the places (at_restaurant, at_customer) that the track passes without an arrival.
    `missed` are true arrivals that the rule cannot find, `false_arrivals` those that it finds
    without an arrival, each with the reason.
    """

    name: str
    trace: str
    restaurant: Position
    customer: Position
    expected: Mapping[str, Window] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    missed: Mapping[str, str] = field(default_factory=dict)
    false_arrivals: Mapping[str, str] = field(default_factory=dict)
    assigned_s: float = -60.0

    @property
    def span_s(self) -> tuple[float, float]:
        """The first and the last second of the trace that the label names."""
        places = (self.restaurant, self.customer)
        named = [at_s for place in places for at_s in (place.from_s, place.to_s)]
        named += [at_s for window in self.expected.values() for at_s in window]
        return min(named), max(named)


def _way(
    at_restaurant: Window, picked_up: Window, arriving: Window, at_customer: Window
) -> dict[str, Window]:
    return {
        "at_restaurant": at_restaurant,
        "picked_up": picked_up,
        "arriving": arriving,
        "at_customer": at_customer,
    }


def _stops() -> list[Label]:
    """Return orders whose places are both real stops."""
    return [
        Label(
            "a van: two parked deliveries, 350 m apart",
            "goal/711",
            Position(82, 247),
            Position(442, 837),
            _way((5, 25), (402, 415), (402, 415), (427, 442)),
        ),
        Label(
            "a van: a stop of one minute, then round the corner",
            "goal/576",
            Position(110, 165),
            Position(235, 310),
            _way((100, 116), (200, 212), (200, 212), (222, 237)),
        ),
        Label(
            "a van: its driver walks about the stop",
            "goal/206",
            Position(20, 55),
            Position(377, 417),
            _way((5, 21), (251, 262), (251, 262), (296, 312)),
        ),
        Label(
            "a van: 370 m along one street",
            "goal/372",
            Position(200, 309),
            Position(384, 434),
            _way((180, 201), (364, 375), (364, 375), (374, 387)),
        ),
        Label(
            "a van: a stray fix 60 m off, amid the second stop",
            "goal/277",
            Position(101, 146),
            Position(416, 515),
            _way((0, 16), (391, 402), (391, 402), (400, 417)),
        ),
        Label(
            "a car at 1 Hz: it stands for 44 s, later for 34 and 69 s",
            "munich/1s",
            Position(143, 187),
            Position(411, 480),
            _way((138, 146), (205, 211), (305, 311), (366, 376)),
        ),
        Label(
            "a car at 1 Hz: it stands for 41 s, far away for 78 s",
            "munich/1s",
            Position(225, 266),
            Position(1032, 1110),
            _way((219, 229), (280, 286), (992, 997), (1025, 1035)),
        ),
        Label(
            "the same drive, a fix every 15 s",
            "munich/15s",
            Position(143, 187),
            Position(411, 480),
            _way((134, 166), (195, 226), (299, 320), (360, 421)),
        ),
        Label(
            "the same drive, a fix every 15 s, the longer way",
            "munich/15s",
            Position(225, 266),
            Position(1032, 1110),
            _way((209, 241), (269, 301), (990, 1010), (1019, 1051)),
        ),
        Label(
            "a phone on a motorway: a rest, then home",
            "phones/d07",
            Position(9478, 9749),
            Position(19186, 19456),
            _way((9447, 9510), (9750, 11700), (19006, 19070), (19150, 19217)),
        ),
        Label(
            "a phone in the evening: a shop, then home",
            "phones/d07",
            Position(26919, 27090),
            Position(27611, 27881),
            _way((26905, 26931), (27117, 27155), (27431, 27470), (27550, 27615)),
            assigned_s=26_000,
        ),
        Label(
            "a phone in a car: an errand",
            "phones/d14",
            Position(303, 423),
            Position(1143, 1412),
            _way((273, 335), (453, 490), (784, 834), (1082, 1145)),
        ),
        Label(
            "the same phone after seven hours: the way back",
            "phones/d14",
            Position(27_487, 27_656),
            Position(28_198, 28_334),
            _way((27_334, 27_490), (27_660, 27_897), (28_108, 28_156), (28_198, 28_240)),
            assigned_s=27_000,
        ),
        Label(
            "a phone in an office, then by bus",
            "phones/d08",
            Position(7134, 7409),
            Position(17_903, 18_205),
            _way((7100, 7140), (17_271, 17_301), (17_603, 17_640), (17_873, 17_935)),
            assigned_s=7000,
        ),
        Label(
            "a phone whose clock runs 2 s ahead: a shop, then home",
            "phones/d09",
            Position(32_689, 32_969),
            Position(35_863, 36_162),
            _way((32_663, 32_702), (35_440, 35_456), (35_820, 35_840), (35_838, 35_870)),
            assigned_s=32_000,
        ),
        Label(
            "a phone on a desk, once thrown 200 m by a cell tower; then on foot",
            "phones/d04",
            Position(7080, 13_467),
            Position(30_554, 30_743),
            _way((7070, 7090), (30_077, 30_140), (30_077, 30_170), (30_400, 30_440)),
        ),
        Label(
            "a phone in a park, a fix every 30 s",
            "phones/d13",
            Position(1550, 1640),
            Position(5739, 5991),
            _way((1458, 1555), (2748, 2990), (5649, 5685), (5690, 5740)),
        ),
        Label(
            "a phone among cell-tower fixes: on foot, then indoors",
            "phones/d11",
            Position(6954, 7242),
            Position(10_536, 11_740),
            _way((6900, 6975), (7439, 7475), (7575, 7600), (7690, 7740)),
        ),
    ]


def _passed_customers() -> list[Label]:
    """Return orders that are picked up, and whose customer the track only passes."""
    return [
        Label(
            "a van passes the customer at 11 m/s",
            "goal/711",
            Position(82, 247),
            Position(420, 424),
            {"at_restaurant": (5, 25), "picked_up": (402, 415), "arriving": (402, 415)},
            passed=("at_customer",),
        ),
        Label(
            "a car passes the customer at 16 m/s",
            "munich/1s",
            Position(143, 187),
            Position(699, 701),
            {"at_restaurant": (138, 146), "picked_up": (205, 211), "arriving": (668, 675)},
            passed=("at_customer",),
        ),
        Label(
            "a phone passes the customer at 17 m/s, 28 s apart from its next fix",
            "phones/d07",
            Position(9478, 9749),
            Position(18_460, 18_470),
            {
                "at_restaurant": (9447, 9510),
                "picked_up": (9750, 11_700),
                "arriving": (18_405, 18_440),
            },
            passed=("at_customer",),
        ),
        Label(
            "a phone passes the customer at 15 m/s",
            "phones/d14",
            Position(303, 423),
            Position(750, 756),
            {"at_restaurant": (273, 335), "picked_up": (453, 490), "arriving": (633, 666)},
            passed=("at_customer",),
        ),
    ]


def _drive_by(name: str, trace: str, from_s: float, to_s: float) -> Label:
    position = Position(from_s, to_s)
    return Label(
        name, trace, position, Position(from_s, to_s, NOWHERE_M), passed=("at_restaurant",)
    )


def _drive_bys() -> list[Label]:
    """Return restaurants that the track passes, or where it stops for less than the dwell."""
    return [
        _drive_by("a van passes at 10 m/s", "goal/711", 410, 414),
        _drive_by("a van passes at 15 m/s, and again after three minutes", "goal/576", 202, 207),
        _drive_by("a van passes at 9 m/s", "goal/206", 249, 254),
        _drive_by("a van passes at 14 m/s", "goal/372", 168, 172),
        _drive_by("a van passes at 17 m/s", "goal/277", 394, 398),
        _drive_by("a van passes at 14 m/s, at the start of a run", "goal/186", 13, 17),
        _drive_by(
            "a van passes at 6 m/s, turns, and passes again 35 s later", "goal+speed/372", 69, 71
        ),
        _drive_by("a car passes at 16 m/s", "munich/1s", 699, 701),
        _drive_by("a car passes at 15 m/s", "munich/1s", 849, 851),
        _drive_by("a car halts for 12 s", "munich/1s", 101, 113),
        _drive_by("a car halts for 19 s", "munich/1s", 952, 971),
        _drive_by("a car halts for 20 s, twice within 100 m", "munich/1s", 21, 41),
        _drive_by("a phone passes on the motorway at 37 m/s", "phones/d07", 1220, 1230),
        _drive_by("a phone halts at a crossing", "phones/d07", 18_610, 18_620),
        _drive_by(
            "a phone halts at a crossing, and passes hours later", "phones/d07", 18_820, 18_830
        ),
        _drive_by("a bus halts: two fixes 29.9 s apart", "phones/d13", 5555, 5592),
        _drive_by("a bus passes at 24 m/s", "phones/d08", 17_428, 17_432),
        _drive_by("an iPhone passes at 20 m/s", "phones/d01", 10_289, 10_291),
        _drive_by("an iPhone passes at 16 m/s", "phones/d02", 28_410, 28_414),
        _drive_by("on a train: a cell tower's place, for four minutes", "phones/d10", 3350, 3600),
        _drive_by("on a train: another tower's place, for a minute", "phones/d12", 2280, 2346),
        _drive_by("indoors: a cell tower's place, 150 m off", "phones/d11", 15_040, 15_150),
    ]


SILENT = (
    "an iPhone that reports every 50 m sends nothing while it stands: no two fixes are within "
    "25 m and 120 s of each other"
)


def _missed() -> list[Label]:
    """Return true arrivals that no rule over the fixes can find."""
    return [
        Label(
            "an iPhone stands for 45 minutes, in silence",
            "phones/d01",
            Position(10_664, 10_676),
            Position(10_664, 10_676, NOWHERE_M),
            missed={"at_restaurant": SILENT},
        ),
        Label(
            "another iPhone beside it",
            "phones/d02",
            Position(25_510, 25_524),
            Position(25_510, 25_524, NOWHERE_M),
            missed={"at_restaurant": SILENT},
        ),
        Label(
            "an iPhone stands for 36 minutes: one fix as it comes, one as it goes",
            "phones/d05",
            Position(2410, 2420),
            Position(2410, 2420, NOWHERE_M),
            missed={"at_restaurant": SILENT},
        ),
        Label(
            "a van: the customer lives 150 m from the restaurant",
            "goal/575",
            Position(140, 206),
            Position(310, 410),
            {"at_restaurant": (125, 147)},
            missed={
                "at_customer": "there was no pick-up command, and without one an order counts as "
                "picked up only 250 m from the restaurant"
            },
        ),
    ]


def _false_arrivals() -> list[Label]:
    """Return arrivals that the rule finds where there was none."""
    return [
        Label(
            "a van passes at 6 m/s, turns, and passes again 35 s later; without speeds",
            "goal/372",
            Position(69, 71),
            Position(69, 71, NOWHERE_M),
            passed=("at_restaurant",),
            false_arrivals={
                "at_restaurant": "two passes, 35 s apart and 25 m from each other, look like the "
                "two ends of a stop when fixes have no speed",
                "picked_up": "it follows from the false arrival",
            },
        )
    ]


LABELS = (*_stops(), *_passed_customers(), *_drive_bys(), *_missed(), *_false_arrivals())
