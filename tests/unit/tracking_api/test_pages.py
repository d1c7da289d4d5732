"""How built files are served: compressed copies, caching. A folder replaces the build."""

from __future__ import annotations

import gzip

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from doorstep.http.assets import Assets
from tracking_api import pages

SCRIPT = "track-ABCD1234.js"


@pytest.fixture
def built(tmp_path):
    (tmp_path / SCRIPT).write_bytes(b"script")
    (tmp_path / f"{SCRIPT}.gz").write_bytes(gzip.compress(b"script", mtime=0))
    (tmp_path / f"{SCRIPT}.br").write_bytes(b"brotli")
    (tmp_path / "track.html").write_bytes(b"<p>page")
    app = Starlette()
    app.mount("/assets", Assets(tmp_path))
    return app


async def get(app, name, accept="", **headers):
    """An answer and its body as it was sent."""
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        client.stream(
            "GET", f"/assets/{name}", headers={"Accept-Encoding": accept, **headers}
        ) as answer,
    ):
        return answer, b"".join([piece async for piece in answer.aiter_raw()])


@pytest.mark.parametrize(
    ("accept", "encoding", "body"),
    [
        ("gzip, deflate, br, zstd", "br", b"brotli"),
        ("gzip;q=1.0, br;q=0.5", "br", b"brotli"),
        ("GZIP", "gzip", gzip.compress(b"script", mtime=0)),
        ("gzip, br;q=0", "gzip", gzip.compress(b"script", mtime=0)),
        ("br; q=0.0, identity", None, b"script"),
        ("", None, b"script"),
    ],
)
async def test_assets__accept_encoding__chooses_the_copy(built, accept, encoding, body):
    answer, raw = await get(built, SCRIPT, accept)
    assert answer.headers.get("content-encoding") == encoding
    assert gzip.decompress(raw) == b"script" if encoding == "gzip" else raw == body
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["vary"] == "Accept-Encoding"


async def test_assets__no_compressed_copy__is_sent_as_it_is(built):
    answer, raw = await get(built, "track.html", "br, gzip")
    assert raw == b"<p>page"
    assert "content-encoding" not in answer.headers


async def test_assets__a_hashed_name__is_cached_for_ever_and_a_page_never(built):
    script, _ = await get(built, SCRIPT, "br")
    page, _ = await get(built, "track.html")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert page.headers["cache-control"] == "no-cache"


async def test_assets__a_known_etag__is_answered_304(built):
    answer, _ = await get(built, SCRIPT, "br")
    again, raw = await get(built, SCRIPT, "br", **{"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, raw) == (304, b"")
    assert again.headers["cache-control"] == answer.headers["cache-control"]
    other, _ = await get(built, SCRIPT, "gzip", **{"If-None-Match": answer.headers["etag"]})
    assert other.status_code == 200  # each copy has its own


@pytest.mark.parametrize("name", ["nothing-ABCD1234.js", "..%2Fpages.py", "%00", "a" * 300])
async def test_assets__no_such_file__is_404(built, name):
    answer, _ = await get(built, name, "br")
    assert answer.status_code == 404
    assert "cache-control" not in answer.headers


async def test_pages__not_built__answer_404_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ASSETS", Assets(tmp_path / "dist"))
    app = FastAPI()
    app.include_router(pages.staff_router)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        answer = await client.get("/sign-in")
    assert answer.status_code == 404
    assert "npm run build" in answer.text
