"""Reading a request's body. The server is a stub."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.types import Message

from doorstep.http.request_body import BodyCutOff, read_body


async def test_body__cut_off_by_a_lost_connection__is_no_defect() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"lat_deg": 43', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    request = Request({"type": "http", "method": "PATCH", "headers": []}, receive)
    with pytest.raises(BodyCutOff) as raised:
        await read_body(request)
    assert raised.value.status == 400
    assert raised.value.retriable
