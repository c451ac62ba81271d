"""A sample of what the scripts try against the service, and the checks of answers themselves."""

import asyncio
import json
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from lucency.deploy.guard import ServiceSettings
from served import Reply, ask, parsed, request_bytes, running_service, served_model
from torture import try_connections, try_requests, try_soak
from torture.drawn_requests import Drawn, fault_of, send_drawn, service_requests
from torture.service_process import Served, answered, request, served_process, small_model

LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="it is read from /proc: run it on Linux"
)


def test_requests_to_a_service_without_a_run_have_described_answers(tmp_path: Path):
    with running_service(served_model(tmp_path), decoders=1) as service:
        found = ask(service.port, request_bytes(service.port, target="/openapi.json"))
        document, faults = json.loads(found.body), list[str]()

        def send(drawn: Drawn) -> None:
            faults.append(fault_of(ask(service.port, drawn.wired(service.port)), drawn, document))

        send_drawn(service_requests(document), 100, send)
        assert len(faults) == 100
        assert set(faults) == {""}
        reply = ask(service.port, request_bytes(service.port))
        assert_faults_are_seen(reply, document)


def assert_faults_are_seen(reply: Reply, document: dict[str, object]) -> None:
    """A right answer of /v1/model is one of no other operation, and each change of it is seen."""
    model = Drawn("GET", "/v1/model", [], {}, b"")
    assert fault_of(reply, model, document) == ""
    assert fault_of(reply, model._replace(path="/metrics"), document).startswith("undescribed type")
    assert fault_of(reply, model._replace(path="/health"), document).startswith("schema")
    assert fault_of(reply, model._replace(path="/none"), document) == "undescribed 200"
    assert fault_of(reply._replace(status=418), model, document).startswith("undescribed 418")
    assert fault_of(reply._replace(status=500), model, document) == "a failure"
    assert fault_of(reply._replace(headers={}), model, document) == "no security headers"


@LINUX
@pytest.mark.slow
def test_connections_of_every_kind_leave_the_service_as_it_was(tmp_path: Path):
    with served_process(small_model(tmp_path)) as service:
        rows = list(try_connections.flood(service, 40, label="service"))
    assert [row.what for row in rows if row.held != row.tried] == []
    assert sum(row.tried for row in rows[:5]) == 200


def test_connections_that_are_never_closed_are_seen():
    calls = list[int]()
    with ExitStack() as stack:
        pairs = [[stack.enter_context(one) for one in socket.socketpair()] for _ in range(3)]
        lines = [ours for ours, _ in pairs]
        for line in lines:
            line.setblocking(False)
        pairs[0][1].close()
        pairs[1][1].sendall(b"HTTP/1.1 408 Request Timeout")
        found = try_connections.fates(lines, within=0.1, meanwhile=lambda: calls.append(1))
    assert found == ["dropped", "answered 408", "open"]
    assert calls
    assert not try_connections.CLOSED & {"open"}


@LINUX
@pytest.mark.slow
def test_a_short_soak_has_right_answers_and_sees_wrong_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(try_soak, "FAULT_SECONDS", dict.fromkeys(try_soak.RIGHT, 1.5))
    monkeypatch.setattr(try_soak, "LARGEST", 2**20)
    place = small_model(tmp_path)
    films = try_soak.predicted_films(place, tmp_path)
    with served_process(place) as service:
        load = asyncio.run(try_soak.soak(service, films, rate=5.0, seconds=6.0))
        wrong = films[0]._replace(probability=films[1].probability)
        assert asyncio.run(try_soak.outcome_of(service, wrong)) == "wrong"
        assert_service_is_measured(service)
        assert_large_body_is_handed_back(service, films[0].content)
    assert {one.outcome for one in load.timed} <= {"right", try_soak.KILLED}
    assert try_soak.decoder_tally(load).held == try_soak.decoder_tally(load).tried > 0
    assert len(load.memory) >= 3


def assert_large_body_is_handed_back(service: Served, film: bytes) -> None:
    """Of what several copies of it took, no more than one is kept."""
    before, largest = try_soak.resident(service.pid), ServiceSettings.body_bytes
    for content, status in ((bytes(largest), 422), (film, 200)):
        assert answered(service, request(service, "/v1/predict", body=content)).status == status
    assert try_soak.resident(service.pid) < before + 1.5 * largest


def assert_service_is_measured(service: Served) -> None:
    assert answered(service, request(service, "/health")).status == 200
    assert try_soak.resident(service.pid) > 50 * try_soak.MEBIBYTE
    assert try_soak.descriptors(service.pid) > 5


def test_growing_memory_is_seen():
    flat = [try_soak.Memory(float(second), 1_000, 9) for second in range(600)]
    grown = [one._replace(held=one.held + int(one.seconds)) for one in flat]
    assert try_soak.memory_tally(flat, seconds=600.0).held == 4
    assert try_soak.memory_tally(grown, seconds=600.0).held == 0


@pytest.mark.slow
def test_requests_to_the_viewer_have_answers(finished: Path):
    run = finished / "runs" / "demo"
    (row,) = try_requests.drawn_at_viewer(try_requests.lu.load(run), run, 100)
    assert row.held == row.tried == 100


def test_an_answer_that_never_came_has_no_status():
    assert parsed(b"").status == 0
