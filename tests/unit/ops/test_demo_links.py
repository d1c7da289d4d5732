"""The order that the demo links to. `FakeLinks` replaces the API's responses."""

from __future__ import annotations

from typing import Any

from ops.demo.links import CHOOSE_AFTER_S, DemoLinks

REMAINING_M = {"o1": 80, "o2": 5200, "o3": 1400, "of another fleet": 9000}


class FakeLinks(DemoLinks):
    """An API with four orders under way, and one whose estimate is not there yet."""

    def _request(self, method: str, path: str) -> Any:
        if path.startswith("/orders?state=picked_up"):
            orders = [{"order_id": one, "driver_id": "anna"} for one in ("o1", "o2", "o3", "o4")]
            return {"orders": [*orders, {"order_id": "of another fleet", "driver_id": "zoe"}]}
        if path.startswith("/track/"):
            remaining_m = REMAINING_M.get(path.removeprefix("/track/"))
            return {"eta": {"distance_m": remaining_m} if remaining_m is not None else None}
        assert method == "POST"
        return {"customer_link": f"http://x{path}", "customer_token": "cst_1"}


def test_show__several_under_way__chooses_the_longest_remaining_way() -> None:
    lines: list[str] = []
    links = FakeLinks("http://x", "stf", {"anna"})
    assert not links.show(lines.append, now=100.0)  # more couriers may begin
    assert not lines
    assert links.show(lines.append, now=100.0 + CHOOSE_AFTER_S)
    assert "http://x/orders/o2/link" in lines[0]
    assert "http://x/track/o2" in lines[1]


def test_show__no_order_of_these_drivers__shows_nothing() -> None:
    lines: list[str] = []
    links = FakeLinks("http://x", "stf", {"bruno"})
    assert not any(links.show(lines.append, now=now) for now in (0.0, 10.0, 20.0))
    assert not lines
