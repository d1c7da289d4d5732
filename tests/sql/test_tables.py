"""The tables of doorstep/store/tables.py against the database, and its roles."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import sqlalchemy

from doorstep import errors
from doorstep.store import admin, commands, fix_writer, tables
from doorstep.store.pool import connection, open_pool
from driver_api.queries import DriverQueries
from tests.database import Database
from tests.factories import CUSTOMER, RESTAURANT, make_fix
from tests.sql.fleet import Fleet

D1_SHA256 = b"1" * 32


@pytest.mark.parametrize("name", sorted(tables.metadata.tables))
def test_tables__every_column__is_in_the_database_with_its_type(fleet: Fleet, name: str) -> None:
    table = tables.metadata.tables[name]
    url = sqlalchemy.make_url(fleet.database.url("doorstep_owner"))
    engine = sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as conn:
            conn.execute(sqlalchemy.select(table)).all()
        found = {
            column["name"]: column["type"]
            for column in sqlalchemy.inspect(engine).get_columns(table.name, schema="doorstep")
        }
    finally:
        engine.dispose()
    for column in table.columns:
        if isinstance(column.type, sqlalchemy.Enum):
            there = found[column.name]
            assert isinstance(there, sqlalchemy.Enum)
            assert there.enums == column.type.enums


async def test_store__as_the_services_call_it__an_order_goes_from_creation_to_delivery(
    fleet: Fleet, database: Database
) -> None:
    tracking = await open_pool(database.url("tracking_api"), 2)
    driving = await open_pool(database.url("driver_api"), 2)
    token = secrets.token_bytes(32)
    place: dict[str, Any] = {"lon_deg": CUSTOMER.lon_deg, "lat_deg": CUSTOMER.lat_deg}
    admin.register_drivers(fleet.conn, [admin.NewDriver("d1", "d1", D1_SHA256)])
    try:
        async with connection(tracking) as conn:
            order = await commands.create_order(
                conn, restaurant_id=1, token_sha256=token, idempotency_key="k", **place
            )
            assert (order.created, order.state, order.order_seq) == (True, "created", 1)
            again = await commands.create_order(
                conn,
                restaurant_id=1,
                token_sha256=secrets.token_bytes(32),
                idempotency_key="k",
                **place,
            )
            assert (again.created, again.order_id) == (False, order.order_id)
            found = await commands.find_token(conn, token)
            assert found == commands.Token("customer", None, order.order_id)
            policy_id = await commands.create_policy(conn, name="fast", dwell_min_s=15.0)
            assert policy_id >= 100
            for command in ("confirm", "assign"):
                order = await commands.command_order_as_staff(
                    conn,
                    order.order_id,
                    command,
                    name="anna",
                    driver_id="d1" if command == "assign" else None,
                )
            assert (order.driver_id, order.assignment_no) == ("d1", 1)
        async with connection(driving) as conn:
            assert await fix_writer.record_fixes_async(conn, [make_fix()]) == []
        phones = DriverQueries(driving)
        with pytest.raises(errors.IllegalTransition) as refusal:
            await phones.command_order(D1_SHA256, order.order_id, "deliver", None)
        assert refusal.value.current_state == "assigned"
        assert refusal.value.allowed == ["decline", "pick_up"]
        driver, current, offers, ends, _orders = await phones.read_driver(D1_SHA256)
        assert offers == []
        assert ends == {"name": "d1", "pin_order_ids": [], "returns": []}
        assert (driver.driver_id, driver.duty, driver.state) == ("d1", "on_duty", "to_restaurant")
        assert current is not None
        assert current["order_id"] == str(order.order_id)
        here = {"lon_deg": RESTAURANT.lon_deg, "lat_deg": RESTAURANT.lat_deg}
        assert current["restaurant"] == {"name": "Da Mario", "address": None, "phone": None} | here
        assert current["destination"] == place
        await phones.command_order(D1_SHA256, order.order_id, "pick_up", None)
        left = await phones.deliver_order(D1_SHA256, order.order_id, None, None, None)
        driver = await phones.change_duty(D1_SHA256, "off_duty", None)
        assert (left.state, left.driver_id) == ("delivered", None)
        for token_sha256 in (token, secrets.token_bytes(32)):  # a customer's, and an unknown one
            with pytest.raises(errors.Unauthenticated):
                await phones.read_driver(token_sha256)
            with pytest.raises(errors.Unauthenticated):
                await phones.change_duty(token_sha256, "on_duty", None)
            with pytest.raises(errors.Unauthenticated):
                await phones.command_order(token_sha256, order.order_id, "deliver", None)
        assert (driver.duty, driver.state, driver.order_id) == ("off_duty", "off_duty", None)
        async with connection(tracking) as conn:
            await commands.replace_customer_token(conn, order.order_id, secrets.token_bytes(32))
            assert await commands.find_token(conn, token) is None
            await commands.revoke_customer_tokens(conn, order.order_id)
    finally:
        await tracking.close()
        await driving.close()
