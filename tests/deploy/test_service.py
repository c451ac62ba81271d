"""The service: its seam for further routes and what it answers."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from lucency.deploy.guard import ServiceSettings
from lucency.deploy.service import create_app

HOME = "http://127.0.0.1:8765"
TOKEN = "a-token-of-the-tests"
HELD = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client() -> Iterator[TestClient]:
    page = Route("/page", lambda _: PlainTextResponse("a page"))
    app = create_app(cast(Any, None), settings=ServiceSettings(token=TOKEN), routes=(page,))
    with TestClient(app, base_url=HOME, follow_redirects=False) as client:
        yield client


def test_further_routes_are_behind_the_guard(client: TestClient) -> None:
    refused, shown = client.get("/page"), client.get("/page", headers=HELD)
    assert (refused.status_code, refused.json()["code"]) == (401, "token-absent")
    assert (shown.status_code, shown.text) == (200, "a page")
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_the_token_of_the_address_becomes_a_cookie(client: TestClient) -> None:
    answer = client.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert client.get("/page").status_code == 200
