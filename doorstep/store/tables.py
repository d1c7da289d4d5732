"""SQLAlchemy tables for queries that are composed from filters. Only sql/'s functions write.

Columns that no query needs are omitted; tests/sql/test_tables.py checks the others against the
database. Use with an engine of `postgresql+psycopg://`.
"""

from __future__ import annotations

from geoalchemy2 import Geometry
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Double,
    Enum,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.types import BigInteger

metadata = MetaData(schema="doorstep")

ORDER_STATES = (
    "created",
    "confirmed",
    "assigned",
    "at_restaurant",
    "picked_up",
    "arriving",
    "at_customer",
    "delivered",
    "cancelled",
    "failed",
)
DRIVER_STATES = (
    "off_duty",
    "available",
    "to_restaurant",
    "at_restaurant",
    "to_customer",
    "at_customer",
    "on_break",
)
DUTIES = ("off_duty", "on_duty", "on_break")
SOURCES = ("gps", "staff", "driver", "customer")
ORDER_VERBS = ("confirm", "assign", "decline", "reassign", "pick_up", "deliver", "cancel", "fail")
ACTORS = ("staff", "driver", "customer")
CONTACT_RULES = ("none", "call", "text", "any")
FAILURE_REASONS = ("customer_absent", "wrong_address", "refused", "damaged", "accident", "other")

order_state = Enum(*ORDER_STATES, name="order_state", schema="doorstep", create_type=False)
driver_status = Enum(*DRIVER_STATES, name="driver_status", schema="doorstep", create_type=False)
driver_duty = Enum(*DUTIES, name="driver_duty", schema="doorstep", create_type=False)
state_source = Enum(*SOURCES, name="state_source", schema="doorstep", create_type=False)
order_verb = Enum(*ORDER_VERBS, name="order_verb", schema="doorstep", create_type=False)
actor = Enum(*ACTORS, name="actor", schema="doorstep", create_type=False)

Instant = DateTime(timezone=True)
Point = Geometry("POINT", srid=4326, spatial_index=False)

policy = Table(
    "policy",
    metadata,
    Column("policy_id", Integer, primary_key=True),
    Column("name", Text),
    Column("enter_radius_m", Double),
    Column("dwell_min_s", Double),
    Column("dwell_max_s", Double),
    Column("dwell_spread_m", Double),
    Column("dwell_max_mps", Double),
    Column("leave_radius_m", Double),
    Column("leave_min_s", Double),
    Column("leave_max_s", Double),
    Column("arriving_radius_m", Double),
    Column("arriving_min_s", Double),
    Column("worst_accuracy_m", Double),
    Column("report_every_s", Double),
    Column("pace", Double),
    Column("created_at", Instant),
)

limits = Table(
    "limits",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("future_s", Double),
    Column("lateness_s", Double),
    Column("worst_accuracy_m", Double),
    Column("nearest_max_age_s", Double),
    Column("nearest_max_m", Double),
    Column("customer_token_s", Double),
)

service_area = Table(
    "service_area",
    metadata,
    Column("name", Text, primary_key=True),
    Column("west", Double),
    Column("south", Double),
    Column("east", Double),
    Column("north", Double),
)

restaurant = Table(
    "restaurant",
    metadata,
    Column("restaurant_id", Integer, primary_key=True),
    Column("name", Text),
    Column("lon_deg", Double),
    Column("lat_deg", Double),
    Column("geom", Point),
)

driver = Table(
    "driver",
    metadata,
    Column("driver_id", Text, primary_key=True),
    Column("name", Text),
    Column("created_at", Instant),
)

device_credential = Table(
    "device_credential",
    metadata,
    Column("device_id", Text, primary_key=True),
    Column("removed_at", Instant),
)

order_return = Table(
    "order_return",
    metadata,
    Column("driver_id", Text),
    Column("ended_at", Instant),
)

driver_sampling = Table(
    "driver_sampling",
    metadata,
    Column("driver_id", Text, primary_key=True),
    Column("sampling_policy", JSONB),
    Column("is_delivered", Boolean),
    Column("set_at", Instant),
)

driver_state = Table(
    "driver_state",
    metadata,
    Column("driver_id", Text, primary_key=True),
    Column("duty", driver_duty),
    Column("state", driver_status),
    Column("order_id", Uuid),
    Column("fix_at", Instant),
    Column("received_at", Instant),
    Column("lon_deg", Double),
    Column("lat_deg", Double),
    Column("accuracy_m", Double),
    Column("speed_mps", Double),
    Column("heading_deg", Double),
    Column("altitude_m", Double),
    Column("battery", Double),
    Column("boot", Text),
    Column("seq", BigInteger),
    Column("geom", Point),
)

fix_history = Table(
    "fix_history",
    metadata,
    Column("driver_id", Text, primary_key=True),
    Column("fix_at", Instant, primary_key=True),
    Column("boot", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("received_at", Instant),
    Column("recorded_at", Instant),
    Column("lon_deg", Double),
    Column("lat_deg", Double),
    Column("accuracy_m", Double),
    Column("speed_mps", Double),
    Column("heading_deg", Double),
    Column("altitude_m", Double),
    Column("battery", Double),
    Column("quarantine", Text),
)

orders = Table(
    "orders",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("restaurant_id", Integer),
    Column("lon_deg", Double),
    Column("lat_deg", Double),
    Column("geom", Point),
    Column("customer_name", Text),
    Column("policy_id", Integer),
    Column("created_at", Instant),
    Column("state", order_state),
    Column("assignment_no", Integer),
    Column("state_source", state_source),
    Column("state_at", Instant),
    Column("order_seq", Integer),
    Column("ended_at", Instant),
)

# a view: an order with its open assignment, if there is one
order_now = Table(
    "order_now",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("state", order_state),
    Column("assignment_no", Integer),
    Column("driver_id", Text),
    Column("order_seq", Integer),
    Column("restaurant_id", Integer),
    Column("lon_deg", Double),
    Column("lat_deg", Double),
    Column("customer_name", Text),
    Column("policy_id", Integer),
    Column("created_at", Instant),
    Column("assigned_at", Instant),
    Column("ended_at", Instant),
)

# a view: the same with the details that staff sees
order_with_details = Table(
    "order_with_details",
    metadata,
    *(Column(one.name, one.type) for one in order_now.columns),
    Column("details", JSONB),
)

order_detail = Table(
    "order_detail",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("search", TSVECTOR),
    Column("ready_at", Instant),
    Column("scheduled_for", Instant),
    Column("promised_from", Instant),
    Column("promised_to", Instant),
)

assignment = Table(
    "assignment",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("assignment_no", Integer, primary_key=True),
    Column("driver_id", Text),
    Column("assigned_at", Instant),
    Column("ended_at", Instant),
    Column("ended_by", Text),
)

evidence = Table(
    "evidence",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("assignment_no", Integer, primary_key=True),
    Column("state", order_state, primary_key=True),
    Column("source", state_source, primary_key=True),
    Column("occurred_at", Instant),
    Column("recorded_at", Instant),
)

order_event = Table(
    "order_event",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column("order_seq", Integer, primary_key=True),
    Column("assignment_no", Integer),
    Column("state", order_state),
    Column("source", state_source),
    Column("driver_id", Text),
    Column("occurred_at", Instant),
    Column("recorded_at", Instant),
)

order_transition = Table(
    "order_transition",
    metadata,
    Column("from_state", order_state),
    Column("to_state", order_state),
    Column("command", order_verb),
    Column("actor", actor),
)

series = Table(
    "series",
    metadata,
    Column("series_no", Integer, primary_key=True),
    Column("name", Text),
    Column("source_id", Text),
    Column("measure", Text),
    Column("unit", Text),
    Column("last_at", Instant),
    Column("last_value", Double),
)

simulation_target = Table(
    "simulation_target",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("target_count", Integer),
    Column("set_at", Instant),
)
