"""Requests drawn from the service's description, each answer held against it; the viewer's too.

The service has a run. Half of the requests are drawn here for the service, a quarter for the
viewer; schemathesis draws some thousands by itself. It is installed, beside the constraints, into a
folder of its own below the user's cache.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import lucency as lu
from lucency.deploy.viewer import viewer_routes
from lucency.deploy.viewer_films import open_viewer
from lucency.pipeline.library import Model
from served import ask, request_bytes, running_service
from torture.drawn_requests import (
    Drawn,
    fault_of,
    fault_of_viewer,
    send_drawn,
    service_requests,
    viewer_requests,
)
from torture.service_process import served_process
from torture.tally import Tally, script, tally
from workplace import build_workplace, train_run

ROOT = Path(__file__).resolve().parents[2]
SCHEMATHESIS = "schemathesis==4.32.5"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "allow_header_conformance",
)  # fmt: skip
PATIENCE = 300.0  # seconds for an answer, on cores that other programs take
LOGGED = re.compile(r"^(\w+) (/\S*|other) (\d{3}) \d+ ms$", re.MULTILINE)


def trained_run(scratch: Path) -> Path:
    """Return the small run of the tests, trained now."""
    build_workplace(scratch)
    with chdir(scratch):
        train_run()
    return scratch / "runs" / "demo"


def drawn_at_service(model: Model, run: Path, times: int) -> Iterator[Tally]:
    """Yield what came of requests to each described operation."""
    with running_service(model, run=run, decoders=1) as service:
        document = json.loads(
            ask(service.port, request_bytes(service.port, target="/openapi.json")).body
        )
        outcomes: dict[str, list[str]] = {}

        def send(drawn: Drawn) -> None:
            reply = ask(service.port, drawn.wired(service.port), patience=PATIENCE)
            fault = fault_of(reply, drawn, document)
            name = drawn.path if drawn.path in document["paths"] else "other paths"
            outcomes.setdefault(name, []).append(outcome(reply.status, fault, drawn))

        send_drawn(service_requests(document), times, send)
    for name in sorted(outcomes):
        yield tally(f"drawn for {name}", outcomes[name], right=str.isdigit)


def drawn_at_viewer(model: Model, run: Path, times: int) -> Iterator[Tally]:
    """Yield what came of requests to the viewer."""
    routes = viewer_routes(open_viewer(model, run=run))
    with running_service(model, routes=routes, run=run, decoders=1) as service:
        found = list[str]()

        def send(drawn: Drawn) -> None:
            reply = ask(service.port, drawn.wired(service.port), patience=PATIENCE)
            found.append(outcome(reply.status, fault_of_viewer(reply), drawn))

        send_drawn(viewer_requests(model.findings), times, send)
    yield tally("drawn for the viewer", found, right=str.isdigit)


def outcome(status: int, fault: str, drawn: Drawn) -> str:
    """Return the status of an answer, or what is wrong with it, which is shown."""
    if fault:
        print(f"{fault}: {drawn!r:.600}", file=sys.stderr)
    return fault or str(status)


def schemathesis(run: Path, times: int) -> Iterator[Tally]:
    """Yield what schemathesis counts; the service's own log says what was answered."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lucency-torture"
    program = home / SCHEMATHESIS / "bin" / "schemathesis"
    if not program.exists():
        venv.create(home / SCHEMATHESIS, with_pip=True, clear=True)
        words = [program.with_name("python"), "-m", "pip", "install", "--quiet", "--quiet"]
        words += ["--constraint", ROOT / "constraints.txt", SCHEMATHESIS]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"schemathesis is left out: it cannot be installed here\n{done.stderr[-300:]}")
            return
    with tempfile.TemporaryDirectory() as scratch, served_process(run) as service:
        report = Path(scratch) / "report.json"
        words = [
            program, "run", f"http://127.0.0.1:{service.port}/openapi.json", "--no-color",
            "--header", f"Authorization: Bearer {service.token}", "--checks", ",".join(CHECKS),
            "--max-examples", str(max(times // 3, 1)), "--seed", "0", "--continue-on-failure",
            "--generation-database", "none", "--report", "json", "--report-json-path", report,
            "--request-timeout", f"{PATIENCE:g}",
        ]  # fmt: skip
        done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=scratch)
        answered = LOGGED.findall(service.logged)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"schemathesis ended with {done.returncode}: {done.stdout[-2000:]}")
    if done.returncode:
        print(done.stdout[-6000:], file=sys.stderr)
    statuses = [status for _, _, status in answered]
    yield tally("schemathesis", statuses, right=lambda one: "200" <= one < "500")
    kept, last = int(done.returncode == 0), done.stdout.strip().splitlines()[-1]
    yield Tally("schemathesis: all answers", 1, kept, last.strip("= ").partition(" in ")[0])


def tries(times: int) -> Iterator[Tally]:
    """Yield the tallies of so many requests, half of them drawn for the service."""
    with tempfile.TemporaryDirectory() as scratch:
        run = trained_run(Path(scratch))
        model = lu.load(run)
        yield from drawn_at_service(model, run, times // 2)
        yield from drawn_at_viewer(model, run, times // 4)
        yield from schemathesis(run, times // 4)


if __name__ == "__main__":
    script("requests", tries, times=10_000, doc=__doc__)
