"""The ways in which `tests.property.mutations` breaks the database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """Texts of functions of the schema to be replaced: (function, old, new)."""

    name: str
    edits: tuple[tuple[str, str, str], ...] = ()
    also: str = ""  # SQL run afterwards
    cases: int = 300  # within so many it must be found
    shifts: bool = False  # play simulated shifts: it is about what customers see


DERIVE, FIRST_PAIR = "evidence__derive", "evidence__first_pair"
ATTEMPT, ON_FIXES = "record_fixes__attempt", "fix_history__derive_evidence"
COMMAND, NEWEST = "apply_order_command_v1", "fix_history__derive_driver_state"
PARTNER, PREPARE = "evidence__partner", "prepare_incoming_v1"
CONTINUE = "record_fixes__continue"
VISIBLE, ARRANGE = "assignment__derive_visible", "driver_stops__arrange"
FREE_FROM = "driver_stops__free_from"

SHOWS, TAKEN_FROM = "customer_view__shows", "customer_view__taken_from"
LEARN = "driver_clock__learn"

_SPAN = """tstzrange(
            least(t.taken_from, of_received_at), greatest(t.taken_from, of_received_at), '[]')"""
_PARTNER = "WHERE b.driver_id = of_driver_id AND"
_NOTHING_BETWEEN = """WHERE NOT EXISTS (SELECT FROM fix_history c WHERE c.driver_id = of_driver_id
    AND c.fix_at > a.fix_at AND c.fix_at < b.fix_at AND c.quarantine IS NULL)
    AND b.driver_id = of_driver_id AND"""
_FRESH = (ON_FIXES, "found_assignment_nos, false)", "found_assignment_nos, true)")

# A transaction's first call notes what it could see; its own rows are in progress.
_TAKE_SNAPSHOT = "PERFORM set_config('test.snapshot', pg_current_snapshot()::text, true)"
_WAS_THERE = """CREATE FUNCTION was_there(x xid) RETURNS bool LANGUAGE sql
    RETURN coalesce(current_setting('test.snapshot', true), '') = ''
        OR pg_xact_status(x::text::xid8) = 'in progress'
        OR pg_visible_in_snapshot(x::text::xid8, current_setting('test.snapshot')::pg_snapshot);
    GRANT EXECUTE ON FUNCTION was_there TO PUBLIC"""

MUTATIONS = (
    Mutation("nothing broken"),
    Mutation(
        "evidence is taken back: only neighbours in time make a pair",
        ((FIRST_PAIR, _PARTNER, _NOTHING_BETWEEN), _FRESH),
    ),
    Mutation(
        "evidence is taken back: a fix beyond the leave radius ends the dwell",
        (
            (
                FIRST_PAIR,
                _PARTNER,
                """WHERE (spread_m IS NULL OR NOT EXISTS (SELECT FROM fix_history c
                    WHERE c.driver_id = of_driver_id AND c.fix_at BETWEEN a.fix_at AND b.fix_at
                        AND ground_distance_m(c.lon_deg, c.lat_deg, place_lon_deg, place_lat_deg)
                            > 4 * radius_m)) AND b.driver_id = of_driver_id AND""",
            ),
            _FRESH,
        ),
    ),
    Mutation(
        "dedupe off: by the ledger",
        ((ATTEMPT, "anonymous OR (r.seq <= b.newest_seq", "anonymous OR (false"),),
    ),
    Mutation(
        "dedupe off: by ledger and key",
        (
            (ATTEMPT, "anonymous OR (r.seq <= b.newest_seq", "anonymous OR (false"),
            (ATTEMPT, "> 0\n                    AS follows_storable", "> 99 AS follows_storable"),
        ),
        "ALTER TABLE fix_history DROP CONSTRAINT fix_history_pkey",
    ),
    Mutation(
        "only a driver's newest fix proves",
        (
            (
                ON_FIXES,
                "WHERE f.quarantine IS NULL\n",
                "WHERE f.fix_at >= (SELECT d.fix_at FROM driver_state d"
                " WHERE d.driver_id = f.driver_id) AND f.quarantine IS NULL\n",
            ),
        ),
    ),
    Mutation(
        "stale read: evidence sees the history as it was before the batch",
        (
            (
                FIRST_PAIR,
                "WHERE a.driver_id",
                "WHERE a.recorded_at < statement_timestamp() AND a.driver_id",
            ),
            (
                FIRST_PAIR,
                _PARTNER,
                _PARTNER.replace("WHERE", "WHERE b.recorded_at < statement_timestamp() AND"),
            ),
        ),
    ),
    Mutation(
        "stale read: a batch's fixes pair with older ones only",
        (
            (
                FIRST_PAIR,
                _PARTNER,
                "WHERE (a.recorded_at < statement_timestamp() OR b.recorded_at <"
                " statement_timestamp()) AND b.driver_id = of_driver_id AND",
            ),
        ),
    ),
    Mutation(
        "stale read: evidence sees the history as it was when the transaction began",
        (
            (FIRST_PAIR, "WHERE a.driver_id", "WHERE was_there(a.xmin) AND a.driver_id"),
            (FIRST_PAIR, _PARTNER, _PARTNER.replace("WHERE", "WHERE was_there(b.xmin) AND")),
            (PREPARE, "BEGIN\n", f"BEGIN {_TAKE_SNAPSHOT};\n"),
        ),
        _WAS_THERE,
    ),
    Mutation(
        "stale read: drivers' rows are not locked",
        ((ATTEMPT, "FOR NO KEY UPDATE OF d SKIP LOCKED", ""),),
    ),
    Mutation(
        "duty as it is now, not when the fix was taken",
        (
            (
                "incoming_fix__off_duty",
                "c.driver_id = i.driver_id AND c.commanded_at <= i.taken_at",
                "c.driver_id = i.driver_id",
            ),
        ),
    ),
    Mutation("positions off duty are kept", ((ATTEMPT, "AND NOT keeps_off_duty", "AND false"),)),
    Mutation(
        "first come instead of earliest: what is recorded stays",
        (
            (
                DERIVE,
                "DO UPDATE\n        SET occurred_at = EXCLUDED.occurred_at\n"
                "        WHERE recorded.occurred_at <> EXCLUDED.occurred_at",
                "DO NOTHING",
            ),
        ),
    ),
    Mutation(
        "first come instead of earliest: what is proved is not looked at again",
        (
            (
                DERIVE,
                "coalesce(a.at_restaurant_at, later)",
                "CASE WHEN a.at_restaurant_at IS NULL THEN later ELSE '-infinity' END",
            ),
            (
                DERIVE,
                "coalesce(a.at_customer_at, later)",
                "CASE WHEN a.at_customer_at IS NULL THEN later ELSE '-infinity' END",
            ),
        ),
    ),
    Mutation(
        "the newest position is the last to arrive",
        ((NEWEST, "n.fix_at > existing.fix_at\n", "true\n"),),
    ),
    Mutation(
        "age is judged by our clock",
        (),
        """CREATE OR REPLACE FUNCTION incoming_fix__rejection_reason(
            boot text, seq int8, fix_at timestamptz, received_at timestamptz,
            lon_deg float8, lat_deg float8, accuracy_m float8, speed_mps float8,
            heading_deg float8, altitude_m float8, battery float8, reason text,
            future interval, lateness interval, sealed timestamptz)
        RETURNS text LANGUAGE sql STABLE
        RETURN CASE WHEN reason IS NOT NULL THEN reason
            WHEN fix_at > now() + future THEN 'in_the_future'
            WHEN fix_at < now() - lateness THEN 'too_old' END""",
    ),
    Mutation(
        "age goes before new or seen",
        (
            (
                ATTEMPT,
                "WHEN anonymous AND rejection NOT IN ('too_old', 'in_the_future', 'sealed',\n"
                "                        'off_duty')",
                "WHEN rejection IS NOT NULL",
            ),
        ),
    ),
    Mutation(
        "a refused fix is not remembered",
        (
            (
                ATTEMPT,
                "(outcome IS NULL OR (outcome LIKE",
                "(outcome IS NULL OR (outcome LIKE 'x' || ",
            ),
        ),
    ),
    Mutation(
        "a block goes although it has a rejected seq",
        (("boot_seqs__settle", " AND rejected IS NULL", ""),),
    ),
    Mutation(
        "what the prefix has passed counts as stored",
        (
            (
                ATTEMPT,
                "THEN get_bit(coalesce(k.rejected, B'0'::bit(2048)),\n"
                "                                    (r.seq & 2047)::int) = 0",
                "THEN true",
            ),
        ),
    ),
    Mutation(
        "the prefix passes a gap",
        (("boot_seqs__settle", "reached + gap_at - 1", "least(newest, reached + gap_at)"),),
    ),
    Mutation(
        "a batch with a gap continues its boot",
        ((ATTEMPT, "AND last_seq - first_seq = fix_count - 1, false", ", false"),),
    ),
    Mutation(
        "optimistic: a fix after a gap continues its boot",
        ((CONTINUE, "d.settled_to = f.first_seq - 1", "d.settled_to < f.first_seq"),),
    ),
    Mutation(
        "optimistic: the newest position is the last to arrive",
        (
            (CONTINUE, "AND d.fix_at < f.fix_at", ""),
            (CONTINUE, "AND fix_at > lag(fix_at) OVER in_order", ""),
        ),
    ),
    Mutation(
        "optimistic: the prefix stays behind in driver_state",
        ((ATTEMPT, "IF have_prefixes THEN", "IF false THEN"),),
    ),
    Mutation(
        "quarantined fixes prove",
        (
            (FIRST_PAIR, "AND a.quarantine IS NULL", ""),
            (FIRST_PAIR, "AND b.quarantine IS NULL", ""),
            (ON_FIXES, "WHERE f.quarantine IS NULL", "WHERE true"),
            (PARTNER, "AND h.quarantine IS NULL", ""),
        ),
        "ALTER TABLE policy DISABLE TRIGGER USER; UPDATE policy SET worst_accuracy_m = 1000",
    ),
    Mutation(
        "a closed assignment keeps what counted before",
        ((COMMAND, "[a.assignment_no], true)", "[a.assignment_no], false)"),),
    ),
    Mutation(
        "a closed assignment takes no late fixes",
        ((ON_FIXES, "coalesce(t.ended_at, 'infinity') > f.fix_at", "t.ended_at IS NULL"),),
    ),
    Mutation(
        "fixes from before the assignment count",
        (
            (
                DERIVE,
                "a.driver_id, a.assigned_at, coalesce(",
                "a.driver_id, a.assigned_at - interval '1 min', coalesce(",
            ),
        ),
    ),
    Mutation(
        "assigning looks at no fixes that are there",
        ((COMMAND, "verb IN ('assign', 'reassign', 'pick_up')", "verb IN ('pick_up')"),),
    ),
    Mutation(
        "carrying does not begin with the command to pick up",
        ((COMMAND, "(picked_up_at > at) IS NOT FALSE", "false"),),
    ),
    Mutation(
        "a closed assignment keeps what the newest fix proved after its end",
        ((COMMAND, "d.fix_at >= greatest(at, a.assigned_at)", "false"),),
    ),
    Mutation(
        "what was parked is forgotten",
        ((ATTEMPT, "EXISTS (SELECT FROM parked_fix WHERE content IS NULL)", "false"),),
    ),
    Mutation(
        "an earlier instant of what is shown is not shown",
        (("orders__apply_evidence", "e.occurred_at < existing.state_at", "false"),),
    ),
    Mutation(
        "a driver's cell is the first one",
        (
            (NEWEST, "cell IS DISTINCT FROM existing_cell", "existing_cell IS NULL"),
            (CONTINUE, "FROM moved WHERE is_in_new_cell", "FROM moved WHERE false"),
        ),
    ),
    Mutation(
        "windows of one driver overlap when our clock is set back",
        (
            (COMMAND, "greatest(at, (\n", "coalesce(at, (\n"),
            (FREE_FROM, "greatest(at, (\n", "coalesce(at, (\n"),
        ),
    ),
    Mutation(
        "customers: fix_at alone decides",
        ((SHOWS, _SPAN, "tstzrange(of_fix_at, of_fix_at, '[]')"),),
        shifts=True,
    ),
    Mutation(
        "customers: how far the clock is ahead is forgotten",
        ((TAKEN_FROM, "(view).clocks_since IS NOT NULL", "false"),),
        shifts=True,
    ),
    Mutation(
        "customers: refused copies tell nothing of the clock",
        (
            (
                LEARN,
                "WHERE i.fix_at > i.received_at + interval '0.5 s'",
                "WHERE i.fix_at > i.received_at + interval '0.5 s'"
                " AND i.fix_at <= i.received_at + interval '120 s'",
            ),
        ),
        shifts=True,
    ),
    Mutation(
        "customers: when a fix arrived is forgotten",
        ((SHOWS, _SPAN, "tstzrange(t.taken_from, t.taken_from, '[]')"),),
        shifts=True,
    ),
    Mutation(
        "customers: other customers' doors are forgotten",
        ((SHOWS, "abs(of_lat_deg - d.lat_deg) * 111195 <= 150", "false"),),
        shifts=True,
    ),
    Mutation(
        "customers: a door is left when its order ends",
        (
            (SHOWS, "coalesce(d.ended_at, 'infinity') > t.taken_from - interval '15 min'", "false"),
            (SHOWS, "NOT customer_view__has_left(view, d, t.taken_from)", "d.ended_at IS NULL"),
        ),
        shifts=True,
    ),
    Mutation(
        "customers: a door is left after 15 minutes",
        ((SHOWS, "NOT customer_view__has_left(view, d, t.taken_from)", "false"),),
        shifts=True,
    ),
    Mutation(
        "customers: the end of an assignment closes no range",
        ((VISIBLE, "tstzrange(NEW.assigned_at, NEW.ended_at)", "tstzrange(NULL, NULL)"),),
        shifts=True,
    ),
    Mutation(
        "customers: the arrival of the first copy to be recorded stays",
        ((ATTEMPT, "o.outcome = 'duplicate'", "false"),),
        shifts=True,
    ),
    Mutation(
        "stops: shown too early, from the assignment on",
        ((VISIBLE, "coalesce(NEW.stop_no, 1) = 1", "true"),),
    ),
    Mutation(
        "stops: cancel forgets to close the range",
        (
            (
                VISIBLE,
                "tstzrange(NEW.assigned_at, NEW.ended_at)",
                "tstzrange(NEW.assigned_at,"
                " CASE WHEN NEW.ended_by IS DISTINCT FROM 'cancel' THEN NEW.ended_at END)",
            ),
        ),
    ),
    Mutation(
        "stops: cancel forgets to open the next range",
        (
            (
                "assignment__arrange_stops",
                "a.driver_id = NEW.driver_id AND a.ended_at IS NULL",
                "a.driver_id = NEW.driver_id AND NEW.ended_by <> 'cancel'",
            ),
        ),
    ),
    Mutation(
        "stops: what is moved back stays visible",
        ((ARRANGE, "t.visible - tstzmultirange(tstzrange(at, NULL))", "t.visible"),),
    ),
    Mutation(
        "stops: what is moved back is never looked at again",
        ((ARRANGE, "WHEN n.stop_no = 1 THEN", "WHEN n.stop_no = 1 AND t.visible = '{}' THEN"),),
    ),
    Mutation(
        "stops: with the customer, fixes of two ranges make a pair",
        ((DERIVE, "unnest(a.visible) AS r", "unnest(range_agg_of(a.visible)) AS r"),),
        """CREATE FUNCTION range_agg_of(ranges tstzmultirange) RETURNS tstzmultirange LANGUAGE sql
        RETURN tstzmultirange(range_merge(ranges)); GRANT EXECUTE ON FUNCTION range_agg_of TO PUBLIC
        """,
    ),
    Mutation(
        "stops: pairs from the future count at once",
        ((DERIVE, "a.until_at, counts_before)", "a.until_at)"),),
    ),
    Mutation(
        "stops: pairs from the future are forgotten",
        ((ON_FIXES, "PERFORM evidence__defer(", "PERFORM cardinality(found_orders); --"),),
    ),
    Mutation(
        "stops: what is picked up moves behind what is not",
        (("set_driver_stops_v1", "a.state >= 'picked_up' AND", "false AND"),),
    ),
    Mutation(
        "stops: a new stop goes to the end",
        (
            (
                "driver_stops__place",
                "IF detour_m IS NULL OR extra_m < detour_m THEN",
                "IF detour_m IS NULL THEN",
            ),
        ),
    ),
    Mutation(
        "the nearest driver is the farthest",
        (("orders__choose_driver", "ORDER BY n.distance_m", "ORDER BY n.distance_m DESC"),),
    ),
)
