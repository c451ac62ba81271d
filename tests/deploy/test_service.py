"""The service: what it answers, what it describes of itself, and what it survives."""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dicom_films import dicom_bytes, phantom_grey
from lucency.cli.app import app as command
from lucency.core.manifest import Preparation
from lucency.core.tables import fitting_films
from lucency.data.dicom import decode_dicom
from lucency.data.preprocess import prepare_film
from lucency.deploy import decoding, guard, service, start
from lucency.deploy.batching import Admission, Batches, NamedFilm, predict_film, run_batches
from lucency.deploy.decoding import (
    Decoders,
    FilmError,
    decode_film,
    start_decoders,
    stop_decoders,
)
from lucency.deploy.film_answers import CARD, LEVEL, strong_boxes
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.listening import run_server
from lucency.deploy.meters import Meters, count, exposition, measure
from lucency.deploy.problems import PROBLEMS, Problem
from lucency.deploy.service import ROUTES, create_app
from lucency.deploy.start import service_address, service_settings
from lucency.explain.heatmaps import MethodError, even_centres
from lucency.pipeline.library import Model, load
from lucency.pipeline.similar_films import answer, find_similar
from served import (
    SERVED,
    SIDE,
    TOKEN,
    ask,
    film_file,
    film_pixels,
    multipart,
    request_bytes,
    served_model,
)
from viewer_run import copy_run, fitted_views

HOME = "http://127.0.0.1:8765"
HELD = {"authorization": f"Bearer {TOKEN}"}
PNG = {"content-type": "image/png"}
PAGE = Route("/page/{of}", lambda _: PlainTextResponse("a page"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small network."""
    place = tmp_path_factory.mktemp("served") / "model"
    served_model(place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, engine="torch")


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[TestClient]:
    """A client that holds the token."""
    settings = ServiceSettings(token=TOKEN, decoders=1, films=8)
    app = create_app(model, settings=settings, routes=(PAGE,), log=lambda _: None)
    with TestClient(app, base_url=HOME, headers=HELD, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def description(client: TestClient) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def fits(description: dict[str, Any], schema: str, answer: object) -> None:
    """Raise unless an answer is as the description has it."""
    referred = {"$ref": f"#/components/schemas/{schema}", "components": description["components"]}
    jsonschema.Draft202012Validator(referred).validate(answer)


def test_further_routes_are_behind_the_guard(client: TestClient) -> None:
    refused = client.get("/page/one", headers={"authorization": ""})
    assert (refused.status_code, refused.json()["code"]) == (401, "token-absent")
    shown = client.get("/page/one")
    assert (shown.status_code, shown.text) == (200, "a page")
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_without_the_guard_strangers_come_in(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "guarded", lambda app, **_: app)
    app = create_app(model, settings=ServiceSettings(token=TOKEN, decoders=0))
    with TestClient(app, base_url="http://evil.example") as stranger:
        assert stranger.get("/v1/model", headers={"origin": "null"}).status_code == 200


def test_the_token_of_the_address_becomes_a_cookie(model: Model) -> None:
    app = create_app(model, settings=ServiceSettings(token=TOKEN, decoders=0), routes=(PAGE,))
    with TestClient(app, base_url=HOME, follow_redirects=False) as browser:
        assert browser.get("/page/one").status_code == 401
        entrance = browser.get(f"/?token={TOKEN}")
        assert (entrance.status_code, 'content="0;url=/"' in entrance.text) == (200, True)
        cookie = entrance.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=strict"} <= {*cookie}
        assert cookie[0] == f"lucency_token_8765={TOKEN}"  # browsers have one jar for all ports
        assert browser.get("/page/one").status_code == 200


def test_any_token_of_a_file_stands_in_the_address(model: Model, tmp_path: Path) -> None:
    (tmp_path / "token").write_text('a+b&c#d e%2f;"=?/')
    settings = replace(service_settings(token_file=tmp_path / "token"), decoders=0)
    app = create_app(model, settings=settings, routes=(PAGE,))
    address = service_address(settings)
    with TestClient(app, base_url=address.partition("?")[0]) as browser:
        assert browser.get(address).status_code == 200
        assert browser.get("/page/one").status_code == 200


def test_a_film_is_predicted_as_on_disk(
    client: TestClient, model: Model, description: dict[str, Any], tmp_path: Path
) -> None:
    film = tmp_path / "film.png"
    film.write_bytes(film_file(3))
    expected = model.predict(film)
    given = client.post("/v1/predict", content=film.read_bytes(), headers=PNG).json()
    fits(description, "Prediction", given)
    (entry,) = given["films"]
    found = entry["findings"]
    probability = [found[name]["probability"] for name in SERVED]
    np.testing.assert_allclose(probability, expected.probability[0], atol=1e-6)
    present = [found[name]["present"] for name in SERVED]
    assert present == (expected.probability[0] >= model.threshold).tolist()
    assert given["model"]["name"] == "test_resnet"
    assert "not a medical device" in given["notice"]


def test_names_of_films_keep_what_ends_them(client: TestClient) -> None:
    about, content = multipart(("a.png\0", film_file(0)), ("a.png", film_file(1)))
    given = client.post("/v1/predict", content=content, headers=about)
    assert given.status_code == 200
    assert [one["film"] for one in given.json()["films"]] == ["a.png\ufffd", "a.png"]


def test_many_films_keep_their_order_and_the_unreadable_their_reason(
    client: TestClient, model: Model, description: dict[str, Any], tmp_path: Path
) -> None:
    files = []
    for seed in range(6):
        (tmp_path / f"{seed}.png").write_bytes(film_file(seed))
        files.append(("film", (f"{seed}.png", film_file(seed))))
    files.insert(2, ("film", ("bad.png", film_file()[:-9])))
    given = client.post("/v1/predict", files=files).json()
    fits(description, "Prediction", given)
    names = [one["film"] for one in given["films"]]
    assert names == ["0.png", "1.png", "bad.png", "2.png", "3.png", "4.png", "5.png"]
    assert given["films"].pop(2)["code"] == "film-truncated"
    found = [[one["findings"][f]["probability"] for f in SERVED] for one in given["films"]]
    expected = model.predict([tmp_path / f"{seed}.png" for seed in range(6)]).probability
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_film_of_sixteen_bits_is_read_by_its_own_depth(model: Model, tmp_path: Path) -> None:
    film = tmp_path / "deep.png"
    cv2.imwrite(str(film), film_pixels(5).astype(np.uint16) * 16)
    found = decoding.prepare_content(film.read_bytes(), preparation=model.preparation)
    np.testing.assert_array_equal(found.pixels, prepare_film(
        film_pixels(5), preparation=model.preparation))  # fmt: skip


def test_a_dicom_film_is_the_film_that_a_display_shows(model: Model) -> None:
    content = dicom_bytes(phantom_grey())
    expected = prepare_film(decode_dicom(content).grey, preparation=model.preparation)
    found = decoding.prepare_content(content, preparation=model.preparation)
    np.testing.assert_array_equal(found.pixels, expected)


def test_one_film_that_cannot_be_read_is_a_problem(
    client: TestClient, description: dict[str, Any]
) -> None:
    reply = client.post("/v1/predict", files=[("film", ("x.png", b"nothing"))])
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    fits(description, "Problem", reply.json())
    assert (reply.json()["code"], reply.json()["film"]) == ("film-unknown-format", "x.png")


def test_a_heat_map_is_that_of_the_library(
    client: TestClient, model: Model, description: dict[str, Any], tmp_path: Path
) -> None:
    film = tmp_path / "film.png"
    film.write_bytes(film_file(1))
    maps = model.explain(film, method="cam", findings=["Mass"]).maps
    where = "/v1/explain?finding=Mass&method=cam"
    auto = client.post("/v1/explain?finding=Mass", content=film.read_bytes(), headers=PNG)
    assert auto.status_code == 200
    given = client.post(f"{where}&as=array", content=film.read_bytes(), headers=PNG).json()
    fits(description, "Explanation", given)
    np.testing.assert_allclose(given["map"], maps.grid[0, 0], atol=1e-5)
    np.testing.assert_allclose(given["rows"], maps.centres.down)
    reply = client.post(where, content=film.read_bytes(), headers=PNG)
    assert reply.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(reply.content))
    assert (picture.size, picture.mode) == ((512, 512), "RGB")
    assert "not a medical device" in picture.text["Comment"]


def test_a_method_that_a_network_does_not_have_is_a_wrong_parameter(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MethodError("cam is not defined for it; use grad-cam")

    monkeypatch.setattr(Model, "explain", refuse)
    given = client.post("/v1/explain?finding=Mass&method=cam", content=film_file(), headers=PNG)
    assert (given.status_code, given.json()["code"]) == (400, "parameter-invalid")
    assert given.json()["detail"] == "cam is not defined for it; use grad-cam"


def test_boxes_surround_what_is_strong() -> None:
    cells = np.zeros((8, 8), dtype=np.float32)
    cells[2:4, 5:7] = 1.0
    ((left, top, right, bottom),) = strong_boxes(cells, even_centres((8, 8))).tolist()
    middle = np.array([left + right, top + bottom]) / 2
    np.testing.assert_allclose(middle, [6 / 8, 3 / 8], atol=2e-3)
    # bilinear from .5 of a cell inside to .5 outside: it falls to LEVEL at 1 - LEVEL of a cell
    np.testing.assert_allclose(right - left, (1 + 2 * (1 - LEVEL)) / 8, atol=2e-3)
    assert len(strong_boxes(np.ones((4, 4), dtype=np.float32), even_centres((4, 4)))) == 0


def test_similar_films_are_those_of_the_command(
    finished: Path, description: dict[str, Any]
) -> None:
    run = finished / "runs" / "demo"
    film = sorted((finished / "films").glob("*.png"))[0]
    served = load(run, model="test_resnet", engine="torch")
    expected = answer(find_similar(run, [film], network="test_resnet", top=3, patients="others"))
    app = create_app(served, settings=ServiceSettings(decoders=1, run=run))
    with TestClient(app, base_url=HOME) as client:
        files = [("film", (film.name, film.read_bytes()))]
        given = client.post("/v1/similar?top=3", files=files).json()
    entry = expected[str(film)]
    assert isinstance(entry, dict)
    assert [one["image"] for one in given["similar"]] == [one["image"] for one in entry["similar"]]
    assert given["left_out"] == entry["left_out"] is not None
    assert given["vote"] == pytest.approx(entry["vote"], abs=1e-3)
    findings = description["components"]["schemas"]["Similar"]["properties"].pop("vote")
    assert set(findings["required"]) == set(SERVED)
    description["components"]["schemas"]["Similar"]["required"].remove("vote")
    fits(description, "Similar", given)


def test_films_of_a_run_that_was_trained_again_are_not_compared(finished: Path) -> None:
    run = finished / "runs" / "demo"
    served = load(run, model="test_resnet", engine="torch")
    home = served.predictor.home
    before = replace(home.metadata("test_resnet"), weights="0123456789abcdef")
    home.described["test_resnet"] = before  # of weights that the service holds, the run no more
    app = create_app(served, settings=ServiceSettings(decoders=1, run=run))
    with TestClient(app, base_url=HOME) as client:
        answer = client.post("/v1/similar", content=film_file(), headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (404, "no-index")
    assert answer.json()["detail"] == "its run was trained again: start the service again"


def test_the_model_describes_itself(
    client: TestClient, model: Model, description: dict[str, Any]
) -> None:
    given = client.get("/v1/model").json()
    fits(description, "Model", given)
    assert given["findings"] == list(SERVED)
    assert [given["thresholds"][name] for name in SERVED] == model.threshold.tolist()
    assert Preparation.model_validate(given["preparation"]) == model.preparation
    card = model.predictor.home.folder / CARD
    card.write_bytes("Modèle".encode("cp1252"))
    assert client.get("/v1/model").json()["card"] == "Mod\ufffdle"
    card.unlink()
    fits(description, "Index", client.get("/").json())
    fits(description, "Health", client.get("/health").json())


def test_every_route_and_every_code_is_described(description: dict[str, Any]) -> None:
    described = {
        (path, method.upper()) for path, item in description["paths"].items() for method in item
    }
    assert described == {(path, method) for path, methods, _ in ROUTES for method in methods}
    assert set(description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == {
        *PROBLEMS
    }
    responses = [
        (int(status), response)
        for item in description["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
    ]
    listed = {(code, status) for status, response in responses for code in codes_of(response)}
    assert listed == {(code, status) for code, (status, _) in PROBLEMS.items()}


def codes_of(response: dict[str, Any]) -> list[str]:
    problem = response.get("content", {}).get("application/problem+json")
    return problem["schema"]["allOf"][1]["properties"]["code"]["enum"] if problem else []


def test_the_documents_list_every_code_and_limit() -> None:
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    section = text.split("\n## Service\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.+) \|$", section, re.MULTILINE)
    assert {code: (int(status), title) for code, status, title in rows} == PROBLEMS
    limits = re.findall(r"^\| `(\w+)`.* \| ([\d.,]+) \|$", section, re.MULTILINE)
    stated = {name: float(value.replace(",", "")) for name, value in limits}
    known = {field.name: field.default for field in fields(ServiceSettings)}
    numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
    assert stated == {k: v for k, v in numbers.items() if k not in ("port", "decoders")}


def test_the_description_is_sound(description: dict[str, Any]) -> None:
    assert description["openapi"] == "3.1.0"
    for schema in description["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    referred = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(description))
    assert {*referred} <= {*description["components"]["schemas"]}
    ids = [one["operationId"] for item in description["paths"].values() for one in item.values()]
    assert len({*ids}) == len(ids) == len(ROUTES)
    with pytest.raises(jsonschema.ValidationError):
        fits(description, "Prediction", {"films": []})


def test_every_film_reason_is_a_code() -> None:
    codes = {*decoding.REASONS.values(), decoding.ENDED, decoding.SLOW, decoding.OTHER,
             decoding.REFUSED_DICOM}  # fmt: skip
    assert codes == {code for code, (status, _) in PROBLEMS.items() if status == 422}


def test_films_that_come_together_go_through_the_network_together(model: Model) -> None:
    sizes: list[float] = []

    async def go() -> list[float]:
        batches = Batches(predict=lambda films: service.predict_named(model, films), most=4,
                          seconds=0.05)  # fmt: skip
        task = asyncio.create_task(run_batches(batches, observe=sizes.append))
        films = [NamedFilm("film", film_pixels(seed, size=SIDE)) for seed in range(10)]
        found = await asyncio.gather(*(predict_film(batches, film) for film in films))
        task.cancel()
        return [float(one.logit[0, 0]) for one in found]

    together = asyncio.run(go())
    assert sizes == [4, 4, 2]
    alone = [
        service.predict_named(model, [NamedFilm("film", film_pixels(seed, size=SIDE))])
        for seed in range(10)
    ]
    np.testing.assert_allclose(together, [one.logit[0, 0] for one in alone], atol=1e-5)


def test_an_error_of_the_network_is_that_of_its_films_alone(model: Model) -> None:
    def predict(films: Any) -> Any:
        if any(film.name == "bad" for film in films):
            raise RuntimeError("out of memory")
        return service.predict_named(model, films)

    async def go() -> None:
        batches = Batches(predict=predict, most=1, seconds=0.0)
        task = asyncio.create_task(run_batches(batches, observe=lambda _: None))
        film = film_pixels(size=SIDE)
        with pytest.raises(RuntimeError, match="out of memory"):
            await predict_film(batches, NamedFilm("bad", film))
        assert len(await predict_film(batches, NamedFilm("good", film))) == 1
        task.cancel()

    asyncio.run(go())


def test_too_many_films_at_once_are_refused(model: Model) -> None:
    app = create_app(model, settings=ServiceSettings(decoders=0, waiting=2, films=8))
    with TestClient(app, base_url=HOME) as client:
        reply = client.post("/v1/predict", files=[("film", ("a.png", film_file()))] * 3)
    assert (reply.status_code, reply.json()["code"]) == (503, "busy")
    assert int(reply.headers["retry-after"]) > 0
    admission = Admission(2)
    with admission.admitted(2), pytest.raises(Problem), admission.admitted(1):
        pass
    with admission.admitted(2):
        assert admission.waiting == 2
    assert admission.waiting == 0


def test_bodies_of_all_requests_together_are_limited(model: Model) -> None:
    app = create_app(model, settings=ServiceSettings(decoders=0, bodies_bytes=100))
    with TestClient(app, base_url=HOME) as client:
        for _ in range(2):  # what was refused is given back
            reply = client.post("/v1/predict", content=film_file(), headers=PNG)
            assert (reply.status_code, reply.json()["code"]) == (503, "busy")
        assert client.post("/v1/predict", content=b"", headers={"content-type": "a/b"}).is_error


@pytest.fixture(scope="module")
def large() -> bytes:
    """A film that takes more than a second and 500 MB to decode; noise makes it no bomb."""
    film = np.zeros((12_000, 12_000), dtype=np.uint16)
    film[:200] = np.random.default_rng(0).integers(0, 2**16, (200, 12_000))
    return cv2.imencode(".png", film)[1].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits", [{"memory": 2**30, "seconds": 60.0}, {"memory": 2**32, "seconds": 0.0}],
    ids=["memory", "time"],
)  # fmt: skip
def test_a_decoder_that_takes_too_much_ends_and_is_replaced(
    limits: dict[str, Any], large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "GRACE_SECONDS", 60.0)

    async def go() -> None:
        decoders = await start_decoders(Preparation(size=32), count=1, **limits)
        with pytest.raises(FilmError) as lost:
            await decode_film(decoders, large)
        assert lost.value.code == "film-decoder-ended"
        assert (await decode_film(decoders, film_file())).pixels.shape == (32, 32)
        await stop_decoders(decoders)

    asyncio.run(go())


@pytest.mark.slow
def test_a_decoder_within_its_limits_takes_the_largest_films(large: bytes) -> None:
    async def go() -> None:
        decoders = await start_decoders(
            Preparation(size=32), count=1, memory=ServiceSettings.decoder_bytes, seconds=60.0
        )
        assert (await decode_film(decoders, large)).pixels.shape == (32, 32)
        await stop_decoders(decoders)

    asyncio.run(go())


def test_memory_is_handed_back_after_large_bodies_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()
    monkeypatch.setattr(guard, "hand_back_memory", lambda: calls.append(1))
    for size, called in ((1_000, 0), (guard.KEPT + 1, 1)):
        headers = {"content-type": "image/png"}
        assert client.post("/v1/predict", content=bytes(size), headers=headers).status_code == 422
        assert len(calls) == called


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc, of Linux")
def test_a_decoder_hands_back_the_memory_of_a_large_body() -> None:
    from torture.service_process import resident

    async def go() -> None:
        decoders = await start_decoders(Preparation(size=32), count=1, memory=2**31, seconds=20.0)
        await decode_film(decoders, film_file())
        process = await decoders.idle.get()
        assert process is not None
        decoders.idle.put_nowait(process)
        before = resident(process.pid)
        with pytest.raises(FilmError, match="not an image"):
            await decode_film(decoders, bytes(ServiceSettings.body_bytes))
        await decode_film(decoders, film_file())  # it waits until the one before is over
        assert resident(process.pid) < before + ServiceSettings.body_bytes / 2
        await stop_decoders(decoders)

    asyncio.run(go())


@pytest.mark.slow
def test_a_decoder_that_hangs_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        decoders = await start_decoders(Preparation(size=32), count=1, memory=2**31, seconds=20.0)
        process = await decoders.idle.get()
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        decoders.idle.put_nowait(process)
        monkeypatch.setattr(decoding, "GRACE_SECONDS", 0.2)
        with pytest.raises(FilmError) as lost:
            await decode_film(decoders._replace(seconds=0.1), film_file())
        assert lost.value.code == "film-decoder-slow"
        assert process.returncode == -signal.SIGKILL
        assert (await decode_film(decoders, film_file())).pixels.shape == (32, 32)
        await stop_decoders(decoders)

    asyncio.run(go())


def test_a_decoder_that_ended_while_it_waited_costs_no_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does code that lies in the working folder, as beside films, come into its successor."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('code that came with films')")
    monkeypatch.chdir(tmp_path)

    async def killed_and_used() -> None:
        decoders = await start_decoders(Preparation(size=32), count=1, memory=2**31, seconds=20.0)
        process = await decoders.idle.get()
        process.kill()
        await process.wait()
        decoders.idle.put_nowait(process)
        assert (await decode_film(decoders, film_file())).pixels.shape == (32, 32)
        await stop_decoders(decoders)

    asyncio.run(killed_and_used())


def test_a_decoder_that_is_ended_as_it_starts_costs_its_film_alone() -> None:
    async def go() -> None:
        decoders = Decoders(("sh", "-c", "exit 1"), 20.0, SIDE, asyncio.Queue())
        decoders.idle.put_nowait(None)
        with pytest.raises(FilmError) as lost:
            await decode_film(decoders, film_file())
        assert lost.value.code == "film-decoder-ended"
        assert decoders.idle.get_nowait() is None

    asyncio.run(go())


def test_a_decoder_that_ends_amid_a_long_answer_leaves_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More has come than the reader of its pipe holds, which then waits for a reader of its own."""
    monkeypatch.setattr(decoding, "PIPED", 16)
    words = ("sh", "-c", "printf '!%0200000d' 0; exec sleep 60")

    async def go() -> None:
        decoders = Decoders(words, 20.0, SIDE, asyncio.Queue())
        decoders.idle.put_nowait(None)
        async with asyncio.timeout(10):
            with pytest.raises(FilmError, match="its decoder failed"):
                await decode_film(decoders, b"")
        assert decoders.idle.get_nowait() is None

    asyncio.run(go())


def test_a_decoder_imports_no_torch() -> None:
    program = "import sys; from lucency.deploy import decoding; decoding.load_decoders(); "
    program += "print(*{'torch', 'sklearn', 'starlette'} & set(sys.modules))"
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_decoders_that_do_not_start_are_one_line(
    model: Model, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    app = create_app(model, settings=ServiceSettings(decoders=2))
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        with start.bind("127.0.0.1", 0) as listening:
            refusal = r"a decoder process does not start \(status 1\); expected room for 2 of them"
            with pytest.raises(ValueError, match=refusal):
                run_server(app, settings=ServiceSettings(decoders=2), listening=listening, line="")
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("hard", "most"), [(-1, 2**31), (2**30, 2**30)])
def test_limits_of_a_decoder_are_within_those_that_it_has(
    hard: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such limits: nothing to do")
    found: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", found.__setitem__)
    decoding._limit_memory(2**31)
    decoding._limit_seconds(2.0**40)
    assert found.pop(resource.RLIMIT_AS) == (most, most)
    soft, kept = found.pop(resource.RLIMIT_CPU)
    assert (soft == hard or hard < 0 < soft, kept) == (True, hard)
    assert set(found.values()) == {(0, 0)}


def test_there_is_a_decoder_for_each_core_up_to_some(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, decoders in ((3, 3), (128, start.MOST_DECODERS)):
        monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
        assert service_settings().decoders == decoders


def test_metrics_are_prometheus_text(client: TestClient) -> None:
    client.get("/v1/model")
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'[a-z_]+(\{([a-z]+="[^"\\]*",?)+\})? [0-9.e+-]+')
    lines = reply.text.splitlines()
    assert [one for one in lines if not (one.startswith("# ") or sample.fullmatch(one))] == []
    assert 'lucency_requests_total{route="/v1/model",method="GET",status="200"}' in reply.text


def test_requests_are_counted_by_their_route(client: TestClient) -> None:
    client.get("/page/patient-7")
    text = client.get("/metrics").text
    assert 'lucency_requests_total{route="/page/{of}",method="GET",status="200"}' in text
    assert "patient-7" not in text


def test_a_histogram_counts_from_below() -> None:
    meters = Meters()
    for value in (0.5, 1.0, 1.5, 9.0):
        measure(meters, "lucency_batch_films", value, bounds=(1.0, 2.0))
    count(meters, "lucency_films_total", outcome="decoded")
    text = exposition(meters, waiting=3)
    found = re.findall(r'lucency_batch_films_bucket\{le="(.+)"\} (\d+)', text)
    assert found == [("1", "2"), ("2", "3"), ("+Inf", "4")]  # le: at most
    assert "lucency_batch_films_sum 12.0" in text
    assert "lucency_batch_films_count 4" in text
    assert "lucency_films_waiting 3" in text


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"host": "0.0.0.0"}, "expected --expose NAME"),
        ({"host": "192.0.2.1"}, "can be reached from other machines"),
        ({"names": ["films.example:80"]}, "without a port"),
        ({"names": ["a/b"]}, "expected a host name"),
        ({"no_token": True, "token_file": Path("token")}, "expected one of them"),
    ],
)
def test_what_would_let_others_in_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        service_settings(**choices)


def test_a_service_is_closed_unless_the_words_say_otherwise(tmp_path: Path) -> None:
    one, two = service_settings(), service_settings()
    assert one.host == "127.0.0.1"
    assert one.token != two.token
    assert len(one.token) >= 32
    assert service_settings(no_token=True).token == ""
    exposed = service_settings(host="0.0.0.0", port=1, names=["Films.example"])
    assert {"films.example", "films.example:1", "localhost:1"} <= exposed.authorities
    assert not any("0.0.0.0" in name for name in exposed.authorities)
    assert service_address(exposed).startswith("http://films.example:1/?token=")
    (tmp_path / "token").write_text("too short\n")
    with pytest.raises(ValueError, match="16 or more"):
        service_settings(token_file=tmp_path / "token")


def test_a_port_in_use_is_one_clear_line(folder: Path) -> None:
    with start.bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(command, ["serve", str(folder), "--port", port])
    assert "expected a free port" in str(done.exception)


def test_a_service_that_loads_has_its_port_already() -> None:
    """Two that load at once would else both load, and one of them fail when it listens."""
    with start.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}: .*; expected a free port"):
            start.bind("127.0.0.1", port)


def test_the_command_serves_and_stops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends the service after what runs; what is new is refused."""
    ended: dict[str, Any] = {}
    real = load
    monkeypatch.setattr("lucency.pipeline.library.load", lambda place, model: real(
        place, model=model, engine="torch"))  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # and so one decoder
    slow = service.predict_named

    def slowly(model: Model, films: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        return slow(model, films)

    monkeypatch.setattr(service, "predict_named", slowly)

    lines: list[str] = []
    monkeypatch.setattr("lucency.deploy.listening.announce", lines.append)

    def visit() -> None:
        while not lines:
            time.sleep(0.02)
        address, _, rest = lines[0].partition("/?token=")
        port, token = int(address.rpartition(":")[2]), rest.split()[0]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}
        sent = request_bytes(port, "POST", "/v1/predict", {**headers}, film_file())
        ended["reply"] = ask(port, sent)

    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    visitor = threading.Thread(target=visit)
    visitor.start()
    done = CliRunner().invoke(command, ["serve", str(folder), "--port", "0"])
    visitor.join(timeout=60)
    for one, handler in handlers.items():
        signal.signal(one, handler)
    assert (done.exit_code, done.exception) == (0, None)
    assert ended["reply"].status == 200
    assert "serves test_resnet. For research only, not a medical device." in lines[0]


def test_a_service_that_stops_says_so(model: Model) -> None:
    app = create_app(model, settings=ServiceSettings(decoders=0))
    with TestClient(app, base_url=HOME) as client:
        client.app_state["service"].admission.stopping = True
        assert client.get("/health").json()["code"] == "stopping"
        reply = client.post("/v1/predict", content=film_file(), headers=PNG)
        assert (reply.status_code, reply.json()["code"]) == (503, "stopping")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("lucency.cli.options.find_spec", lambda name: None)
    done = CliRunner().invoke(command, ["serve", str(folder)])
    assert "pip install 'lucency[serve]'" in str(done.exception)


def test_names_of_films_are_matched_as_those_of_files(model: Model) -> None:
    """A film's name is what it has in the request, not its place among those that came with it."""
    sent = [NamedFilm(name, film_pixels(size=SIDE)) for name in ("a.png", "x/b.png", "a.png")]
    names = service.prepared_films(model, sent).manifest.image
    assert len({*names.tolist()}) == 3
    known = np.array(["0/a.png", "images_001/b.png", "images_002/a.png", "1/b.png"])
    assert fitting_films(names[:1], known[1:]) == [(1,)]
    assert fitting_films(names, known[1:3]) == [(1,), (0,), (1,)]
    assert fitting_films(names[:1], np.array(["0/a.png", "a.png"])) == [(1,)]
    assert fitting_films(names[2:], np.array(["0/a.png", "a.png"])) == [(1,)]


def test_what_is_no_network_answers_too(finished: Path, tmp_path: Path) -> None:
    """Augmented views depend on a film's name: those of one that is sent are those on disk."""
    run = copy_run(finished, tmp_path / "run")
    fitted_views(run, name="three views", place="three-views")
    one = load(run, model="three views", engine="torch")
    film = sorted((finished / "films").glob("*.png"))[1]
    app = create_app(one, settings=ServiceSettings(decoders=1, run=run))
    with TestClient(app, base_url=HOME) as client:
        files = [("film", (name, film.read_bytes())) for name in ("other.png", film.name)]
        given = client.post("/v1/predict", files=files).json()
        similar = client.post("/v1/similar?top=1", files=files[:1])
    found = [
        [film["findings"][name]["probability"] for name in one.findings] for film in given["films"]
    ]
    np.testing.assert_allclose(found[1], one.predict(film).probability[0], atol=1e-6)
    assert not np.allclose(found[0], found[1], atol=1e-6)
    assert given["model"]["kind"] == "views"
    assert similar.json()["network"] in ("test_convnext", "test_resnet")
