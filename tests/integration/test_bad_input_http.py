"""Bad input over HTTP, on the running services: a 4xx with a reason, never a 5xx, nothing stored.

Numbers are those of docs/reference/bad-input.md; the fixes are the same as over MQTT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ops.stack.stack import Stack
from tests.integration.bad_input import (
    CASES,
    DOUBTFUL,
    KEPT,
    LAT_DEG,
    LON_DEG,
    Case,
    Kept,
    ago_ms,
    each,
    fix_text,
)
from tests.integration.bad_input_clients import Services, driver_of, open_services
from tests.integration.http_services import problem_of

NAMES = [
    *(case.name for case in CASES),
    *(kept.name for kept in KEPT),
    *(f"{number:02d}_{slug}" for number, slug, _, _ in DOUBTFUL),
    *(
        "19_ignored_copy",
        "27_jump",
        "28_duplicate",
        "29_late",
        "30_conflict",
    ),
]


@pytest.fixture(scope="module")
def services(stack: Stack) -> Iterator[Services]:
    with open_services(stack, NAMES) as services:
        yield services


@pytest.mark.parametrize("case", each(CASES))
def test_patch_location__bad_fix__is_422_with_its_reason_and_its_neighbours_are_stored(
    services: Services, case: Case
) -> None:
    driver_id = driver_of(case.name)
    assert services.patch(driver_id, fix_text(1).encode()).status_code == 200
    answer = services.patch(driver_id, case.make(2))
    slug = "rejected-fix" if case.number in (23, 24) else "malformed-fix"
    wanted = case.reason_alone if case.over_http is None else case.over_http
    assert problem_of(answer, 422, slug)["reason"] == wanted
    assert services.patch(driver_id, fix_text(9).encode()).status_code == 200
    assert services.stored(driver_id) == [1, 9]


@pytest.mark.parametrize("case", each([case for case in CASES if case.is_entry]))
def test_post_locations__one_bad_fix_of_three__is_rejected_and_its_neighbours_are_stored(
    services: Services, case: Case
) -> None:
    driver_id = driver_of(case.name)
    parts = [fix_text(3).encode(), case.make(4), fix_text(5).encode()]
    answer = services.post(driver_id, parts)
    assert answer.status_code == 200, answer.text
    assert [(one["outcome"], one["reason"]) for one in answer.json()["outcomes"]] == [
        ("committed", None),
        ("rejected", case.reason),
        ("committed", None),
    ]
    assert {3, 5} <= set(services.stored(driver_id))
    assert not {2, 4} & set(services.stored(driver_id))


@pytest.mark.parametrize("kept", each(KEPT))
def test_optional_field_or_instant_is_odd__at_both_routes__is_committed_and_named_in_ignored(
    services: Services, kept: Kept
) -> None:
    driver_id = driver_of(kept.name)
    answer = services.patch(driver_id, kept.make(2))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["outcome"], answer.json()["ignored"]) == ("committed", [*kept.ignored])
    answer = services.post(driver_id, [fix_text(3).encode(), kept.make(4), kept.make(2)])
    assert [(one["outcome"], one["ignored"]) for one in answer.json()["outcomes"]] == [
        ("committed", []),
        ("committed", [*kept.ignored]),
        ("duplicate" if kept.fix_at else "conflict", [*kept.ignored]),
    ]
    assert services.stored(driver_id) == [2, 3, 4]
    rows = services.rows(
        "SELECT accuracy_m, speed_mps, heading_deg, altitude_m, battery FROM doorstep.fix_history"
        " WHERE driver_id = %s AND seq IN (2, 4)",
        driver_id,
    )
    assert rows == [kept.stored] * 2
    if kept.fix_at is not None:
        instants = services.rows(
            "SELECT fix_at FROM doorstep.fix_history WHERE driver_id = %s AND seq IN (2, 4)",
            driver_id,
        )
        assert instants == [(kept.fix_at(),)] * 2


def test_copy_with_an_ignored_field__of_a_fix_without_it__is_a_duplicate(
    services: Services,
) -> None:
    driver_id, fix_at = driver_of("19_ignored_copy"), ago_ms(1)
    plain = fix_text(2, fix_at=fix_at).encode()
    odd = fix_text(2, fix_at=fix_at, speed_mps=-1).encode()
    other = fix_text(2, fix_at=fix_at, speed_mps=1).encode()
    assert services.patch(driver_id, plain).json()["outcome"] == "committed"
    answer = services.patch(driver_id, odd).json()
    assert (answer["outcome"], answer["ignored"]) == ("duplicate", ["speed_mps"])
    problem_of(services.patch(driver_id, other), 409, "conflicting-fix")


@pytest.mark.parametrize(
    "case",
    each([one for one in CASES if not one.is_entry and one.number in (1, 2, 12, 13, 14, 16)]),
)
def test_post_locations__unreadable_body__is_422_as_a_whole(services: Services, case: Case) -> None:
    driver_id = driver_of(case.name)
    parts = [fix_text(3).encode(), case.make(4), fix_text(5).encode()]
    reason = problem_of(services.post(driver_id, parts), 422, "malformed-fix")["reason"]
    assert reason in {case.reason, "not_json"}
    assert not {3, 4, 5} & set(services.stored(driver_id))


def test_10_batch_of_257__is_422_and_256_are_committed(services: Services) -> None:
    driver_id = driver_of("10_batch_of_257")
    parts = [fix_text(seq).encode() for seq in range(100, 357)]
    problem = problem_of(services.post(driver_id, parts), 422, "malformed-fix")
    assert problem["reason"] == "too_many_fixes"
    answer = services.post(driver_id, parts[:256])
    assert (answer.status_code, answer.json()["committed"]) == (200, 256)


@pytest.mark.parametrize(
    ("name", "members", "reason"),
    [
        pytest.param(f"{number:02d}_{slug}", members, reason, id=f"{number:02d}_{slug}")
        for number, slug, members, reason in DOUBTFUL
    ],
)
def test_patch_location__doubtful__is_200_quarantined(
    services: Services, name: str, members: dict[str, object], reason: str
) -> None:
    answer = services.patch(driver_of(name), fix_text(2, **members).encode())
    assert (answer.status_code, answer.json()["outcome"]) == (200, "quarantined")
    assert answer.json()["reason"] == reason
    rows = services.rows(
        "SELECT quarantine FROM doorstep.fix_history WHERE driver_id = %s", driver_of(name)
    )
    assert rows == [(reason,)]


def test_27_jump__is_stored_and_flagged_on_read(services: Services) -> None:
    driver_id = driver_of("27_jump")
    order = services.order("confirm")
    headers = services.token(driver_id)
    assert services.drivers.post(f"/drivers/{driver_id}/on-duty", headers=headers).is_success
    services.command(order, "assign", driver_id=driver_id)
    for seq, north in enumerate((0.0, 0.0001, 0.05, 0.0002), start=1):  # 0.05 degrees: 5.5 km
        fix = fix_text(seq, lat_deg=LAT_DEG + north, fix_at=ago_ms(-4 * seq)).encode()
        assert services.patch(driver_id, fix).json()["outcome"] == "committed"
    path = f"/track/{order['order_id']}/history"
    features = services.tracking.get(path, headers=services.staff).json()["features"]
    points = [one for one in features if one["geometry"]["type"] == "Point"]
    assert [bool(one["properties"].get("jump")) for one in points] == [False, False, True, False]
    [line] = [one for one in features if one["geometry"]["type"] == "LineString"]
    assert len(line["geometry"]["coordinates"]) == 3
    services.command(order, "cancel")


def test_28_duplicate__is_200_and_stored_once(services: Services) -> None:
    driver_id, fix = driver_of("28_duplicate"), fix_text(1).encode()
    answers = [services.patch(driver_id, fix) for _ in range(3)]
    assert [one.status_code for one in answers] == [200] * 3
    outcomes = [one.json()["outcome"] for one in answers]
    assert outcomes == ["committed", "duplicate", "duplicate"]
    again = services.post(driver_id, [fix, fix]).json()
    assert (again["duplicate"], services.stored(driver_id)) == (2, [1])


def test_29_late_fix__is_200_committed(services: Services) -> None:
    driver_id = driver_of("29_late")
    services.patch(driver_id, fix_text(2).encode())
    late = services.patch(driver_id, fix_text(1, fix_at=ago_ms(7200)).encode())
    assert (late.status_code, late.json()["outcome"]) == (200, "committed")
    assert services.stored(driver_id) == [1, 2]


def test_30_other_content_under_known_identity__is_409_and_the_first_stays(
    services: Services,
) -> None:
    driver_id = driver_of("30_conflict")
    fix = {"boot": "b1", "seq": 1, "fix_at": ago_ms(1), "lat_deg": LAT_DEG, "lon_deg": LON_DEG}
    services.patch(driver_id, json.dumps(fix).encode())
    other = json.dumps(fix | {"lat_deg": 43.8}).encode()
    problem_of(services.patch(driver_id, other), 409, "conflicting-fix")
    assert services.post(driver_id, [other]).json()["conflict"] == 1
    rows = services.rows("SELECT lat_deg FROM doorstep.fix_history WHERE driver_id = %s", driver_id)
    assert rows == [(LAT_DEG,)]


def test_30_illegal_transition__is_409_with_state_and_allowed_commands(
    services: Services,
) -> None:
    order = services.order()
    path = f"/orders/{order['order_id']}/fail"
    problem = problem_of(
        services.tracking.post(path, headers=services.staff), 409, "illegal-transition"
    )
    assert problem["current_state"] == "created"
    assert problem["allowed"] == ["confirm", "cancel"]
