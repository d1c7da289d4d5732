"""The order that the demo shows. `Shown` replaces the API's answers."""

from __future__ import annotations

from typing import Any

from ops.stack.demo_links import CHOOSE_AFTER_S, DemoLinks

WAYS_LEFT_M = {"o1": 80, "o2": 5200, "o3": 1400, "of another fleet": 9000}


class Shown(DemoLinks):
    """An API with four orders under way, and one whose estimate is not there yet."""

    def _ask(self, method: str, path: str) -> Any:
        if path.startswith("/orders?state=picked_up"):
            orders = [{"order_id": one, "driver_id": "anna"} for one in ("o1", "o2", "o3", "o4")]
            return {"orders": [*orders, {"order_id": "of another fleet", "driver_id": "zoe"}]}
        if path.startswith("/track/"):
            left_m = WAYS_LEFT_M.get(path.removeprefix("/track/"))
            return {"eta": {"distance_m": left_m} if left_m is not None else None}
        assert method == "POST"
        return {"customer_link": f"http://x{path}", "customer_token": "cst_1"}


def test_show__several_under_way__the_one_with_the_longest_way_left() -> None:
    said: list[str] = []
    showcase = Shown("http://x", "stf", {"anna"})
    assert not showcase.show(said.append, now=100.0)  # more couriers may begin
    assert not said
    assert showcase.show(said.append, now=100.0 + CHOOSE_AFTER_S)
    assert "http://x/orders/o2/link" in said[0]
    assert "http://x/track/o2" in said[1]


def test_show__nobody_of_ours_under_way__shows_nothing_yet() -> None:
    said: list[str] = []
    showcase = Shown("http://x", "stf", {"bruno"})
    assert not any(showcase.show(said.append, now=now) for now in (0.0, 10.0, 20.0))
    assert not said
