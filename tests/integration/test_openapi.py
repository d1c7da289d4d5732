"""Both OpenAPI documents held to the running services: whatever is asked, the answer is in them.

Each operation is called with requests made from the document, good and spoilt ones, by staff, a
driver, a customer and without a token. FUZZ_CASES sets how many; a release asks for 10,000.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from doorstep.credentials import driver_token
from ops.stack.stack import Stack
from tests.fuzz.payloads import CASES

SERVICES = ("driver_api", "tracking_api")
CHECKS = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
HOST = "127.0.0.36"  # bad links are counted by address: no other test uses it
DRIVER = "openapi-anna"
# What a middleware answers before any route is known: in the docs' text, not in each operation.
BEFORE_ROUTES = {400, 408, 429, 431}
PROBLEM = "application/problem+json"


@dataclass
class Api:
    """One service: its document, how to call it, and what has been called."""

    name: str
    url: str
    operations: list[Any]
    session: requests.Session
    tokens: dict[str, str | None]
    order_id: str
    called: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def apis(stack: Stack) -> Iterator[dict[str, Api]]:
    stack.add_drivers([DRIVER])
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", SourceAddress())
    staff = stack.paths.staff_token()
    urls = (stack.addresses.driver_api_url, stack.addresses.tracking_api_url)
    new = {"restaurant_id": 7, "destination": {"lon_deg": 11.2486, "lat_deg": 43.7711}}
    headers = {"Authorization": f"Bearer {staff}"}
    order = session.post(f"{urls[1]}/orders", json=new, headers=headers, timeout=20).json()
    tokens = {
        "staff": staff,
        "driver": driver_token(stack.paths.fleet_key(), DRIVER),
        "customer": order["customer_token"],
        "anonymous": None,
    }
    yield {
        name: Api(
            name,
            url,
            operations_of(f"http://{stack.addresses.telemetry_of(name)}"),
            session,
            tokens,
            order["order_id"],
        )
        for name, url in zip(SERVICES, urls, strict=True)
    }
    session.close()


class SourceAddress(HTTPAdapter):
    """Calls from an address of the test's own."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> Any:
        return super().init_poolmanager(*arguments, source_address=(HOST, 0), **options)


def operations_of(internal_url: str) -> list[Any]:
    """Every operation of a service's document, but for streams that never end."""
    schema = schemathesis.openapi.from_url(f"{internal_url}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    return [one for one in found if not is_stream(one.definition.raw)]


def is_stream(operation: dict[str, Any]) -> bool:
    return "text/event-stream" in operation["responses"].get("200", {}).get("content", {})


def ask(api: Api, case: Any, who: str, own: bool) -> list[str]:
    """Call an operation, and say what of the answer is not in the document."""
    path = case.path_parameters
    ends = case.operation.path.endswith(
        ("/link", "/cancel", "/retire")
    )  # would end what the others need
    if own and path and not ends:
        path.update({k: v for k, v in known_of(api).items() if k in path})
    token = api.tokens[who]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    case.headers.pop("Authorization", None)
    case.cookies.clear()
    response = case.call(
        base_url=api.url, session=api.session, headers=headers, timeout=30, allow_redirects=False
    )
    api.called[case.operation.method.upper(), case.operation.path, who] += 1
    api.statuses[response.status_code] += 1
    said = [f"{case.method} {case.path} {who}: {response.status_code} {response.text[:300]}"]
    wrong: list[str] = []
    if response.status_code >= 500 and response.status_code != 503:
        wrong.append("a 5xx")
    if response.status_code >= 400:
        wrong += problem_flaws(response)
    if response.status_code not in BEFORE_ROUTES:
        try:
            case.validate_response(response, checks=CHECKS, excluded_checks=[not_a_server_error])
        except FailureGroup as group:
            wrong += [f"{type(one).__name__}: {one}" for one in group.exceptions]
        except Failure as one:
            wrong.append(str(one))
    return said + wrong if wrong else []


def known_of(api: Api) -> dict[str, str]:
    return {"order_id": api.order_id, "driver_id": DRIVER, "restaurant_id": "7", "policy_id": "1"}


def problem_flaws(response: Any) -> list[str]:
    """What keeps an error from being a problem document."""
    if response.headers.get("content-type", [""])[0] != PROBLEM:
        return ["an error that is no problem document"]
    document = json.loads(response.content)
    if document["status"] != response.status_code or not document["type"].startswith("/problems/"):
        return [f"a problem that says {document}"]
    if response.status_code == 422 and not document.get("reason"):
        return ["a 422 without its reason"]
    return []


@pytest.mark.parametrize("who", ["staff", "driver", "customer", "anonymous"])
@pytest.mark.parametrize("service", SERVICES)
def test_openapi__every_operation__is_answered_as_the_document_says(
    apis: dict[str, Api], service: str, who: str
) -> None:
    api = apis[service]
    each = max(2, CASES // 200)
    for operation in api.operations:
        made = st.one_of(
            *(operation.as_strategy(generation_mode=mode) for mode in modes_of(operation))
        )

        @settings(
            max_examples=each,
            deadline=None,
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(made, st.integers(0, 3))
        def call(case: Any, whose: int) -> None:
            wrong = ask(api, case, who, own=whose > 0)
            assert not wrong, wrong

        call()
    called = {(method, path) for method, path, by in api.called if by == who}
    assert called == {(one.method.upper(), one.path) for one in api.operations}


def modes_of(operation: Any) -> list[GenerationMode]:
    """Spoilt requests need something that can be spoilt: a parameter or a body."""
    return [GenerationMode.POSITIVE, *[GenerationMode.NEGATIVE] * can_be_spoilt(operation)]


def can_be_spoilt(operation: Any) -> bool:
    return bool(operation.query or operation.headers or operation.body)
