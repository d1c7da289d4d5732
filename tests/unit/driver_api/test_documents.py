"""Documents of driver_api: problems, metrics, OpenAPI. The seam is `driver_api.queries.Store`."""

from __future__ import annotations

from typing import Any

from tests.unit.driver_api.memory_store import problem_of


async def test_unknown_path_or_method__any__is_a_problem_document(http):
    problem_of(await http.get("/nowhere"), 404, "not-found")
    answer = await http.delete("/drivers/d1")
    problem_of(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


async def test_metrics__requests__are_labelled_by_route_without_ids(http):
    await http.get("/drivers/d1")
    await http.get("/drivers/d1/nowhere/else")
    text = (await http.get("/metrics")).text
    assert 'route="/drivers/{driver_id}"' in text
    assert 'route="(none)"' in text
    assert "d1/" not in text


async def test_openapi__is_3_1_with_problems_and_examples(http):
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    patch = document["paths"]["/drivers/{driver_id}/location"]["patch"]
    assert patch["requestBody"]["content"]["application/json"]["examples"]
    assert {"401", "403", "404", "409", "413", "415", "422", "429", "503"} <= set(
        patch["responses"]
    )
    references = set(_references(document))
    assert references
    assert {name for name in references if name not in document["components"]["schemas"]} == set()


async def test_docs__every_operation__is_on_the_page_without_scripts(http):
    document = (await http.get("/openapi.json")).json()
    page = await http.get("/docs")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert all(f"<code>{path}</code>" in page.text for path in document["paths"])
    assert (await http.get("/docs.css")).headers["content-type"].startswith("text/css")


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
        return own + [name for inner in value.values() for name in _references(inner)]
    if isinstance(value, list):
        return [name for inner in value for name in _references(inner)]
    return []
