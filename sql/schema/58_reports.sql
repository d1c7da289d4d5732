-- A day's report: the orders created on a local day of a city, by restaurant and driver.
--
-- Every function starts from the orders of the day by the index orders_page, and looks the rest up
-- by key, so its work is bounded by the orders of the day, however large the tables are.

-- What is counted of an order. Stages follow its last assignment; null: not known, or not over.
CREATE TYPE reported_order AS (
    order_id uuid,
    restaurant_id int,
    restaurant_name text,
    state order_state,
    promised_from timestamptz,
    promised_to timestamptz,
    delivered_at timestamptz,
    stages_s float8[]  -- as Stage in tracking_api/reports/schemas.py
);

-- The local day of a city. Raises DS043 for a city that does not exist.
CREATE FUNCTION report_day_v1(of_city text, of_date date)
RETURNS TABLE (time_zone text, from_at timestamptz, to_at timestamptz, read_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT a.time_zone, of_date::timestamp AT TIME ZONE a.time_zone,
            (of_date + 1)::timestamp AT TIME ZONE a.time_zone, clock_timestamp()
        FROM service_area a WHERE a.name = of_city;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no service area %', of_city USING ERRCODE = 'DS043';
    END IF;
END
$$;

CREATE FUNCTION report__orders(of_city text, since timestamptz, before timestamptz)
RETURNS SETOF reported_order LANGUAGE sql STABLE
AS $$
    SELECT o.order_id, o.restaurant_id, r.name, o.state, d.promised_from, d.promised_to,
        e.delivered_at,
        ARRAY[
            report__seconds(o.created_at, c.confirmed_at),
            report__seconds(c.confirmed_at, f.assigned_at),
            report__seconds(a.assigned_at, a.at_restaurant_at),
            report__seconds(a.at_restaurant_at, a.picked_up_at),
            report__seconds(a.picked_up_at, coalesce(a.at_customer_at, e.delivered_at)),
            report__seconds(a.at_customer_at, e.delivered_at),
            report__seconds(o.created_at, e.delivered_at)
        ]
    FROM orders o
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.state = 'delivered' THEN o.ended_at END AS delivered_at
    ) e
    CROSS JOIN LATERAL (
        SELECT t.name FROM restaurant t
        WHERE t.restaurant_id = o.restaurant_id AND t.city = of_city OFFSET 0
    ) r
    LEFT JOIN LATERAL (
        SELECT * FROM order_detail t WHERE t.order_id = o.order_id OFFSET 0
    ) d ON true
    LEFT JOIN LATERAL (
        SELECT * FROM assignment t
        WHERE t.order_id = o.order_id AND t.assignment_no = o.assignment_no OFFSET 0
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT t.assigned_at FROM assignment t WHERE t.order_id = o.order_id
        ORDER BY t.assignment_no LIMIT 1
    ) f ON true
    CROSS JOIN LATERAL (
        SELECT min(v.occurred_at) AS confirmed_at FROM order_event v
        WHERE v.order_id = o.order_id AND v.state = 'confirmed'
    ) c
    WHERE o.created_at >= since AND o.created_at < before
$$;

CREATE FUNCTION report__seconds(since timestamptz, before timestamptz)
RETURNS float8 LANGUAGE sql IMMUTABLE
RETURN CASE WHEN before > since THEN extract(epoch FROM before - since)::float8
    WHEN before <= since THEN 0 END;

-- The figures of each restaurant, and with a null restaurant_id those of the city.
CREATE FUNCTION report_restaurants_v1(of_city text, since timestamptz, before timestamptz)
RETURNS TABLE (
    restaurant_id int, restaurant_name text, orders int, open int, delivered int, cancelled int,
    failed int, promised int, early int, in_window int, late int, late_p50_s float8,
    late_max_s float8, open_late int, stage_orders int[], stage_p50_s float8[],
    stage_p90_s float8[]
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    now CONSTANT timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
        SELECT q.restaurant_id, min(q.restaurant_name), count(*)::int,
            count(*) FILTER (WHERE q.state < 'delivered')::int,
            count(*) FILTER (WHERE q.state = 'delivered')::int,
            count(*) FILTER (WHERE q.state = 'cancelled')::int,
            count(*) FILTER (WHERE q.state = 'failed')::int,
            count(*) FILTER (WHERE q.delivered_at IS NOT NULL AND q.promised_to IS NOT NULL)::int,
            count(*) FILTER (WHERE q.delivered_at < q.promised_from)::int,
            count(*) FILTER (WHERE q.delivered_at >= coalesce(q.promised_from, '-infinity')
                AND q.delivered_at <= q.promised_to)::int,
            count(*) FILTER (WHERE q.delivered_at > q.promised_to)::int,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY l.late_s) FILTER (WHERE l.late_s > 0),
            max(l.late_s) FILTER (WHERE l.late_s > 0),
            count(*) FILTER (WHERE q.state < 'delivered' AND q.promised_to < now)::int,
            ARRAY[count(q.stages_s[1]), count(q.stages_s[2]), count(q.stages_s[3]),
                count(q.stages_s[4]), count(q.stages_s[5]), count(q.stages_s[6]),
                count(q.stages_s[7])]::int[],
            ARRAY[
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[1]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[2]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[3]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[4]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[5]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[6]),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY q.stages_s[7])
            ],
            ARRAY[
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[1]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[2]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[3]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[4]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[5]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[6]),
                percentile_cont(0.9) WITHIN GROUP (ORDER BY q.stages_s[7])
            ]
        FROM report__orders(of_city, since, before) q
        CROSS JOIN LATERAL (
            SELECT extract(epoch FROM q.delivered_at - q.promised_to)::float8 AS late_s
        ) l
        GROUP BY GROUPING SETS ((), (q.restaurant_id))
        ORDER BY q.restaurant_id NULLS FIRST;
END
$$;

-- How many orders failed or were cancelled, by whom and for which reason; null: none was given. The
-- reason of a cancellation is a text.
CREATE FUNCTION report_reasons_v1(of_city text, since timestamptz, before timestamptz)
RETURNS TABLE (restaurant_id int, state text, by_actor text, reason text, orders int)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT q.restaurant_id, q.state::text, c.actor::text, c.reason, count(*)::int
        FROM report__orders(of_city, since, before) q
        CROSS JOIN LATERAL (
            SELECT t.actor, CASE WHEN t.command = 'cancel' THEN left(t.note, 100)
                ELSE t.failure_reason::text END AS reason
            FROM order_command t
            WHERE t.order_id = q.order_id AND t.to_state = q.state
            ORDER BY t.order_command_id LIMIT 1
        ) c
        WHERE q.state IN ('cancelled', 'failed')
        GROUP BY q.restaurant_id, q.state, c.actor, c.reason
        ORDER BY q.restaurant_id, q.state, count(*) DESC, c.actor, c.reason;
END
$$;

-- The drivers who had one of these orders, and what became of it with them.
CREATE FUNCTION report_drivers_v1(
    of_city text, since timestamptz, before timestamptz, at_most int
)
RETURNS TABLE (
    driver_id text, name text, assignments int, delivered int, failed int, cancelled int,
    given_up int
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = doorstep, public, pg_temp
SET enable_hashjoin = off  -- every join is a look-up by key
SET enable_mergejoin = off
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT w.driver_id, w.name, w.assignments, w.delivered, w.failed, w.cancelled, w.given_up
        FROM (
            SELECT a.driver_id, min(n.name) AS name, count(*)::int AS assignments,
                count(*) FILTER (WHERE a.ended_by = 'deliver')::int AS delivered,
                count(*) FILTER (WHERE a.ended_by = 'fail')::int AS failed,
                count(*) FILTER (WHERE a.ended_by = 'cancel')::int AS cancelled,
                count(*) FILTER (WHERE a.ended_by IN ('decline', 'reassign'))::int AS given_up
            FROM report__orders(of_city, since, before) q
            CROSS JOIN LATERAL (
                SELECT * FROM assignment t WHERE t.order_id = q.order_id OFFSET 0
            ) a
            CROSS JOIN LATERAL (
                SELECT t.name FROM driver t WHERE t.driver_id = a.driver_id OFFSET 0
            ) n
            GROUP BY a.driver_id
        ) w
        ORDER BY w.driver_id
        LIMIT at_most;
END
$$;
