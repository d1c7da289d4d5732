"""What admins set: rules that hold for every writer."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from data import BUNDLED_CITY
from doorstep.credentials import DeviceSecrets
from doorstep.errors import DoorstepError
from doorstep.store.people import change_device
from tests.factories import RESTAURANT
from tests.sql.fleet import Fleet

HOURS = {"days": ["mon"], "from": "11:30", "to": "15:00"}


def sqlstate(fleet: Fleet, statement: str, *parameters: Any) -> str | None:
    with pytest.raises((psycopg.Error, DoorstepError)) as found:
        fleet.run(statement, *parameters)
    error = found.value.__cause__ or found.value
    assert isinstance(error, psycopg.Error)
    return error.sqlstate


@pytest.mark.parametrize(
    "hours",
    [
        {},
        "mon",
        [1],
        [["days"]],
        [{}],
        [HOURS | {"days": []}],
        [HOURS | {"days": "mon"}],
        [HOURS | {"days": ["monday"]}],
        [HOURS | {"days": [["mon"]]}],
        [HOURS | {"from": "24:00"}],
        [HOURS | {"to": "9:00"}],
        [HOURS | {"to": None}],
        [HOURS | {"note": "x"}],
        [HOURS, HOURS | {"from": 1130}],
    ],
)
def test_opening_hours__of_another_form__are_refused(fleet: Fleet, hours: Any) -> None:
    statement = "UPDATE restaurant SET opening_hours = %s::jsonb"
    assert sqlstate(fleet, statement, json.dumps(hours)) == "23514"


@pytest.mark.parametrize("hours", [None, [], [HOURS], [HOURS, HOURS | {"to": "02:00"}]])
def test_opening_hours__of_the_form__are_kept(fleet: Fleet, hours: Any) -> None:
    text = None if hours is None else json.dumps(hours)
    fleet.run("UPDATE restaurant SET opening_hours = %s::jsonb", text)
    assert fleet.run("SELECT opening_hours FROM restaurant") == [{"opening_hours": hours}]


def test_restaurant__created_where_an_id_was_given_by_hand__gets_the_next(fleet: Fleet) -> None:
    values = json.dumps({"name": "A", "lon_deg": 1, "lat_deg": 1})
    create = "SELECT create_restaurant_v1(%s, 'test') AS id"
    [first] = fleet.run(create, values)
    fleet.run(
        "INSERT INTO restaurant (restaurant_id, name, lon_deg, lat_deg) VALUES (%s, 'B', 1, 1)",
        first["id"] + 1,
    )
    assert fleet.run(create, values) == [{"id": first["id"] + 2}]


def test_restaurant__with_swapped_coordinates__is_refused_where_its_place_is_set(
    fleet: Fleet,
) -> None:
    lon_deg, lat_deg = RESTAURANT
    swapped = json.dumps({"name": "A", "lon_deg": lat_deg, "lat_deg": lon_deg})
    create = "SELECT create_restaurant_v1(%s, 'test') AS id"
    change = "SELECT change_restaurant_v1(%s, %s, 'test')"
    assert sqlstate(fleet, create, swapped) == "DS051"
    [made] = fleet.run(create, json.dumps({"name": "A", "lon_deg": lon_deg, "lat_deg": lat_deg}))
    assert sqlstate(fleet, change, made["id"], swapped) == "DS051"
    fleet.run(change, made["id"], f'{{"lon_deg": {lat_deg}}}')  # half of it: in no service area
    fleet.run("UPDATE restaurant SET lat_deg = %s WHERE restaurant_id = %s", lon_deg, made["id"])
    fleet.run(change, made["id"], '{"name": "B"}')  # one from before the rule
    fleet.run(create, json.dumps({"name": "C", "lon_deg": 2.35, "lat_deg": 48.85}))


def test_bundled_data__registered_again__keep_what_an_admin_changed(fleet: Fleet) -> None:
    fleet.run("SELECT change_restaurant_v1(1, %s, 'test')", '{"name": "Mine"}')
    fleet.run("SELECT change_service_area_v1(%s, %s, 'test')", BUNDLED_CITY, '{"east": 12}')
    fleet.run("SELECT change_driver_v1('d1', %s, 'test')", '{"name": "Anna"}')
    fleet.run(
        "SELECT register_restaurants_v1('{1}', '{Da Mario}', %s, %s)",
        *([one] for one in RESTAURANT),
    )
    fleet.run("SELECT register_service_area_v1(%s, 11, 43, 11.5, 44)", BUNDLED_CITY)
    fleet.run("SELECT register_drivers_v1('{d1}', '{d1}', ARRAY[NULL::bytea])")
    assert fleet.run("SELECT name FROM restaurant") == [{"name": "Mine"}]
    assert fleet.run("SELECT east FROM service_area") == [{"east": 12}]
    assert fleet.run("SELECT name FROM driver WHERE driver_id = 'd1'") == [{"name": "Anna"}]


def test_driver__removed__cannot_come_on_duty_by_any_door(
    fleet: Fleet, conn: psycopg.Connection[Any]
) -> None:
    change_device(conn, "driver", "d1", "remove", "test")
    conn.commit()
    for actor in ("driver", "staff"):
        statement = "SELECT * FROM apply_driver_command_v1('d1', 'on_duty', %s, NULL)"
        assert sqlstate(fleet, statement, actor) == "DS040"
    assert sqlstate(fleet, "SELECT change_driver_v1('d1', '{}', 'test')") == "DS040"
    change_device(conn, "driver", "d1", "add", "test", DeviceSecrets.draw("driver"))
    conn.commit()
    fleet.run("SELECT * FROM apply_driver_command_v1('d1', 'on_duty', 'driver', NULL)")
    assert fleet.driver("d1")["state"] == "available"


def test_forgotten_driver__the_row_in_place_of_all__cannot_be_changed(fleet: Fleet) -> None:
    fleet.run("INSERT INTO driver (driver_id, name) VALUES ('forgotten', 'forgotten')")
    assert sqlstate(fleet, "SELECT change_driver_v1('forgotten', '{}', 'test')") == "DS003"


def test_policy__of_the_default__is_always_one(fleet: Fleet) -> None:
    [made] = fleet.run("SELECT replace_policy_v1(1, '{\"pace\": 2}', 'test') AS id")
    [other] = fleet.run('SELECT create_policy_v1(\'{"name": "other"}\') AS id')
    fleet.run("SELECT set_default_policy_v1(%s, 'test')", other["id"])
    assert fleet.run("SELECT policy_id FROM policy_status WHERE is_default") == [
        {"policy_id": other["id"]}
    ]
    assert sqlstate(fleet, "SELECT set_default_policy_v1(1, 'test')") == "DS040"
    assert sqlstate(fleet, "SELECT retire_policy_v1(%s, 'test')", other["id"]) == "DS042"
    assert sqlstate(fleet, "SELECT retire_policy_v1(99, 'test')") == "DS005"
    fleet.run("SELECT retire_policy_v1(%s, 'test')", made["id"])
    assert sqlstate(fleet, "UPDATE policy SET pace = 3") == "DS013"


def test_audit__of_a_change__has_the_fields_and_never_the_values(fleet: Fleet) -> None:
    fleet.run("SELECT change_driver_v1('d1', %s, 'vera')", '{"phone": "+39 055 1234"}')
    [entry] = fleet.run("SELECT who, action, subject, detail FROM audit")
    assert entry == {
        "who": "vera",
        "action": "driver.change",
        "subject": "d1",
        "detail": {"fields": ["phone"]},
    }
