"""The viewer's routes: films that filter, pixels as files have them, verdicts that are read."""

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import lucency as lu
from dicom_films import dicom_bytes, phantom_grey, stored_for
from lucency.audit.label_audit import audit_label_errors
from lucency.cli.app import app
from lucency.core.locks import LOCK, held_lock
from lucency.core.manifest import FINDINGS, Manifest, empty_boxes
from lucency.deploy import film_list, start, viewer_films
from lucency.deploy.film_list import FilmFilter, FilmList, select_films
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.listening import bind
from lucency.deploy.service import create_app
from lucency.deploy.verdicts import Verdict, check_verdict, keep_verdict, read_verdicts
from lucency.deploy.viewer import FILES, viewer_routes
from lucency.deploy.viewer_films import RUN_ONLY, AddedFilm, Viewer, add_film, open_viewer
from lucency.explain.heatmap_results import read_heatmap_fields
from lucency.explain.heatmaps import MethodError, load_heatmaps, save_heatmaps
from lucency.pipeline.library import Model
from lucency.pipeline.similar_films import find_similar, similar_to
from viewer_run import HOT, copy_run, fitted_views, known_maps

WHOLE = 112_120
HOME = "http://127.0.0.1:8765"
DEEP = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80) * 3  # 14 bits


@pytest.fixture(scope="module")
def run(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_run(finished, tmp_path_factory.mktemp("viewed") / "demo")


@pytest.fixture(scope="module")
def model(finished: Path, run: Path) -> Model:
    found = lu.load(finished / "runs" / "demo")
    known_maps(run, found.name)
    return found


@pytest.fixture(scope="module")
def deep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("films") / "deep.png"
    cv2.imwrite(str(file), DEEP)
    return file


@pytest.fixture(scope="module")
def viewer(run: Path, model: Model, deep_file: Path) -> Viewer:
    return open_viewer(model, run=run, films=[deep_file])


@pytest.fixture(scope="module")
def page(viewer: Viewer) -> Iterator[TestClient]:
    with TestClient(served(viewer), base_url=HOME) as client:
        yield client


def served(viewer: Viewer, **choices: Any) -> Any:
    run = viewer.run.out if viewer.run else None
    settings = ServiceSettings(decoders=1, run=run, **choices)
    return create_app(
        viewer.model, settings=settings, routes=viewer_routes(viewer), log=lambda _: None
    )


def got(page: TestClient, path: str, **words: object) -> Any:
    answer = page.get(f"/viewer/api/{path}", params={k: str(v) for k, v in words.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(answer: dict[str, Any]) -> list[str]:
    return [film["image"] for film in answer["films"]]


def key_of(page: TestClient, image: str) -> str:
    return got(page, "films", text=image)["films"][0]["key"]


def test_the_page_and_its_files_are_sent(page: TestClient):
    assert "<title>Lucency viewer</title>" in page.get("/").text
    folder = Path(film_list.__file__).parent / "viewer_page"
    assert {file.name for file in folder.iterdir()} == {*FILES, "index.html"}
    for name, kind in FILES.items():
        answer = page.get(f"/viewer/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.content == (folder / name).read_bytes()
    for name in ("viewer.py", "%2e%2e/viewer.py", "..%2fviewer.py", "index.html/../x", "nothing"):
        assert page.get(f"/viewer/{name}").status_code in (400, 404)


def test_the_page_holds_no_script_style_or_place_of_its_own():
    folder = Path(film_list.__file__).parent / "viewer_page"
    text = (folder / "index.html").read_text()
    assert "style=" not in text
    assert re.findall(r"\son\w+=|<script(?! type=\"module\" src=)", text) == []
    for file in folder.iterdir():
        content = file.read_text()
        assert not [w for w in ("innerHTML", "insertAdjacentHTML", "eval(") if w in content]
        assert "://" not in content.replace("http://www.w3.org/2000/svg", "")


def test_the_model_is_described(page: TestClient, model: Model):
    about = got(page, "model")
    assert (about["name"], about["findings"]) == (model.name, list(model.findings))
    assert about["threshold"] == model.threshold.tolist()
    assert (about["run"], about["films"], about["remark"]) == ("demo", 60, "")
    assert about["added"][0]["image"] == "deep.png"


@pytest.mark.parametrize("error", ["missed", "false alarm"])
def test_errors_are_those_of_the_confusion_table(
    page: TestClient, run: Path, model: Model, error: str
):
    table = pd.read_csv(run / "evaluation" / "confusion.csv")
    counts = table.loc[table["network"] == model.name].set_index("finding")
    column = {"missed": "fn", "false alarm": "fp"}[error]
    found = {
        finding: got(page, "films", finding=finding, error=error, part="test")["total"]
        for finding in model.findings
    }
    assert found == counts[column].to_dict()
    assert sum(found.values()) > 0


def test_suspected_label_errors_are_those_of_the_audit(page: TestClient, run: Path, model: Model):
    file = run / "predictions" / model.name / "predictions.npz"
    audit = audit_label_errors(file, labels=None, expert=None, scale="probability", top=20)
    errors = audit.tables["errors"]
    for finding, mine in errors.groupby("finding"):
        answer = got(page, "films", finding=finding, error="label error", limit=500)
        assert sorted(names(answer)) == sorted(set(mine["image"]))


def test_films_filter_by_finding_part_view_text_and_probability(
    page: TestClient, run: Path, model: Model
):
    films = pd.read_csv(run / "prepared" / "manifest.csv", keep_default_na=False)
    part = pd.read_csv(run / "split" / "part.csv").set_index("image")["part"]
    predictions = lu.load_predictions(run / "predictions" / model.name / "predictions.npz")
    score = predictions.to_frame().set_index("image")["Effusion"]
    limit = model.threshold[model.findings.index("Effusion")]
    called = set(score.index[score >= limit]) | set(films["image"][films["Effusion"] == 1])
    assert set(names(got(page, "films", finding="Effusion", limit=500))) == called
    for name in ("train", "val", "test"):
        found = names(got(page, "films", part=name, limit=500))
        assert set(found) == set(part.index[part == name])
    assert set(names(got(page, "films", view="AP", limit=500))) == set(
        films["image"][films["view"] == "AP"]
    )
    assert names(got(page, "films", text=films["image"][7].upper())) == [films["image"][7]]
    middle = score[(score >= 0.2) & (score <= 0.6) & score.index.isin(called)]
    bounds = {"finding": "Effusion", "low": 0.2, "high": 0.6, "limit": 500}
    found = got(page, "films", **bounds, order="lowest")
    assert set(names(found)) == set(middle.index)
    values = [film["probability"] for film in found["films"]]
    assert values == sorted(values)
    highest = got(page, "films", **bounds, order="highest")["films"]
    assert [film["probability"] for film in highest] == sorted(values, reverse=True)


def test_pages_of_the_list_are_pieces_of_it(page: TestClient):
    whole = got(page, "films", limit=500)
    pieces = [got(page, "films", offset=start, limit=7) for start in range(0, 60, 7)]
    assert [name for piece in pieces for name in names(piece)] == names(whole)
    assert {piece["total"] for piece in pieces} == {60}
    assert got(page, "films", offset=1_000)["films"] == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"finding": "Efusion"}, "nearest is 'Effusion'"),
        ({"part": "tset"}, "nearest is 'test'"),
        ({"error": "wrong"}, "missed, false alarm, label error"),
        ({"view": "LL"}, "expected one of AP"),
        ({"low": "-1"}, "a probability from 0 to 1"),
        ({"high": "nan"}, "a probability from 0 to 1"),
        ({"offset": "-1"}, "a whole number"),
        ({"limit": "1e9"}, "a whole number"),
    ],
)
def test_filters_that_mean_nothing_are_refused(page: TestClient, words: dict[str, str], named: str):
    answer = page.get("/viewer/api/films", params=words)
    assert (answer.status_code, answer.json()["code"]) == (400, "parameter-invalid")
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]


def long_list() -> FilmList:
    random = np.random.default_rng(0)
    shape = (WHOLE, len(FINDINGS))
    facts = {"view": random.choice(["PA", "AP"], WHOLE), "follow_up": random.integers(0, 99, WHOLE)}
    manifest = Manifest(
        findings=FINDINGS, image=np.array([f"{row:08d}_000.png" for row in range(WHOLE)]),
        patient=np.sort(random.integers(0, 30_805, WHOLE)),
        label=(random.uniform(size=shape) < 0.05).astype(np.float32), facts=pd.DataFrame(facts),
        boxes=empty_boxes(), origin="",
    )  # fmt: skip
    return FilmList(
        manifest=manifest, part=random.choice(["train", "val", "test"], WHOLE),
        view=facts["view"].astype(str), probability=random.uniform(size=shape) ** 4,
        threshold=np.full(len(FINDINGS), 0.3), predictions=None,
    )  # fmt: skip


def test_a_list_of_112120_films_answers_at_once():
    films = long_list()
    filters = [
        FilmFilter(),
        FilmFilter(finding="Mass", error="missed", order="lowest"),
        FilmFilter(error="false alarm", part="test", view="AP", order="highest"),
        FilmFilter(low=0.5, high=0.6, order="highest"),
        FilmFilter(text="001234"),
    ]
    select_films(films, FilmFilter(text="first"))  # makes the names to search in
    for one in filters:
        start = time.perf_counter()
        rows = select_films(films, one)
        assert time.perf_counter() - start < 0.5
        assert len(rows) > 0
    assert len(select_films(films, filters[0])) == WHOLE


def test_a_film_s_pixels_are_those_of_its_file(page: TestClient, viewer: Viewer):
    assert viewer.films is not None
    path = str(viewer.films.manifest.facts["path"][5])
    answer = page.get("/viewer/api/film/5/pixels")
    expected = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    side = [int(answer.headers[f"x-film-{name}"]) for name in ("height", "width", "bytes", "bits")]
    assert side == [*expected.shape, 1, 8]
    assert answer.content == expected.tobytes()
    enhanced = page.get("/viewer/api/film/5/pixels?clahe=1").content
    about = viewer.model.preparation
    tiles = (about.clahe_tiles, about.clahe_tiles)
    assert enhanced == cv2.createCLAHE(about.clahe_clip, tiles).apply(expected).tobytes()


def test_sixteen_bits_stay_sixteen_bits(page: TestClient):
    answer = page.get("/viewer/api/film/a1/pixels")
    head = {name: answer.headers[f"x-film-{name}"] for name in ("bytes", "bits", "low", "high")}
    assert head == {"bytes": "2", "bits": "14", "low": "0", "high": "16383"}
    assert np.array_equal(np.frombuffer(answer.content, dtype="<u2").reshape(64, 80), DEEP)


def test_a_dicom_film_is_taken_at_its_depth_with_its_window(page: TestClient):
    stored = (np.arange(64 * 72).reshape(64, 72) % 4096).astype(np.int64)
    content = dicom_bytes(stored, WindowCenter=1000, WindowWidth=800)
    head = {"X-Film-Name": "chest%20%3Cb%3E.dcm"}
    film = page.post("/viewer/api/films", content=content, headers=head).json()
    assert film["image"] == "chest <b>.dcm"
    answer = page.get(f"/viewer/api/film/{film['key']}/pixels")
    shown = np.frombuffer(answer.content, dtype="<u2").reshape(stored.shape)
    with pydicom.dcmread(BytesIO(content)) as file:
        assert np.array_equal(shown, file.pixel_array)
    assert answer.headers["x-film-bits"] == "12"
    low, high = (float(answer.headers[f"x-film-{name}"]) for name in ("low", "high"))
    assert (low + high) / 2 == pytest.approx(1000, abs=1)
    assert high - low == pytest.approx(799, abs=1)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n cut"])
def test_what_is_no_film_is_refused_by_its_name(page: TestClient, content: bytes):
    answer = page.post("/viewer/api/films", content=content, headers={"X-Film-Name": "odd.png"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("odd.png: ")


def test_thumbnails_are_small_pictures(page: TestClient):
    for key in ("3", "a1"):
        content = np.frombuffer(page.get(f"/viewer/api/film/{key}/thumbnail").content, np.uint8)
        small = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        assert max(small.shape) == 96
        assert small.std() > 5


def test_a_film_is_described(page: TestClient, viewer: Viewer):
    films = viewer.films
    assert films is not None
    boxed = films.manifest.boxes["image"][0]
    row = films.manifest.image.tolist().index(boxed)
    film = got(page, f"film/{row}")
    mine = films.manifest.boxes.loc[films.manifest.boxes["image"] == boxed]
    assert film["boxes"] == mine.drop(columns="image").to_dict("records")
    assert film["label"] == films.manifest.label[row].tolist()
    assert "path" not in film["facts"]
    together = np.flatnonzero(films.manifest.patient == films.manifest.patient[row]).tolist()
    assert sorted(int(one["key"]) for one in film["patient_films"]) == together
    turns = [one["follow_up"] for one in film["patient_films"]]
    assert turns == sorted(turns)


def test_training_and_named_films_are_predicted_when_they_are_shown(
    page: TestClient, model: Model, viewer: Viewer, deep_file: Path
):
    key = got(page, "films", part="train")["films"][0]["key"]
    assert got(page, f"film/{key}")["probability"] is None
    assert viewer.films is not None
    path = viewer.films.manifest.facts["path"][int(key)]
    expected = model.predict([path, deep_file]).probability
    for place, one in enumerate((key, "a1")):
        found = got(page, f"film/{one}/prediction")["probability"]
        np.testing.assert_allclose(found, expected[place], atol=1e-6)


def test_heat_maps_of_the_run_are_read_and_others_made(
    page: TestClient, model: Model, viewer: Viewer
):
    tested = got(page, "films", part="test")["films"][0]["key"]
    kept = got(page, f"film/{tested}/heatmap", finding="Effusion")
    assert np.argwhere(np.array(kept["grid"]) == 1).tolist() == [list(HOT)]
    trained = got(page, "films", part="train")["films"][0]["key"]
    made = got(page, f"film/{trained}/heatmap", finding="Effusion")
    assert viewer.films is not None
    path = viewer.films.manifest.facts["path"][int(trained)]
    maps = model.explain(path, findings=["Effusion"]).maps
    assert (made["network"], made["method"]) == (model.explained, maps.method)
    np.testing.assert_allclose(made["grid"], maps.grid[0, 0], atol=1e-5)
    assert made["down"] == maps.centres.down.tolist()
    answer = page.get(f"/viewer/api/film/{tested}/heatmap?finding=Fracture")
    assert (answer.status_code, "Fracture" in answer.json()["detail"]) == (400, True)


def test_heat_maps_of_other_weights_are_not_shown(viewer: Viewer, model: Model):
    assert viewer.run is not None
    run, network = viewer.run.out, model.explained
    weights = model.predictor.home.metadata(network).weights
    receipt = run / "explanation" / "receipt.json"
    for held, there in ((weights, True), ("0123456789abcdef", False)):
        receipt.write_text(json.dumps({"weights": held}))
        viewer_films._kept_maps.cache_clear()
        assert bool(viewer_films._kept_maps(run, network, weights)) is there
    receipt.unlink()
    viewer_films._kept_maps.cache_clear()


def test_the_network_works_in_one_thread(page: TestClient, monkeypatch: pytest.MonkeyPatch):
    """Heat maps on torch hook the network: two at once would read each other's layers."""
    threads, real = set[int](), Model.explain

    def explain(model: Model, *films: Any, **about: Any) -> Any:
        threads.add(threading.get_ident())
        return real(model, *films, **about)

    monkeypatch.setattr(Model, "explain", explain)
    keys = [film["key"] for film in got(page, "films", part="train")["films"][2:4]]
    for key in keys:
        got(page, f"film/{key}/heatmap", finding="Atelectasis")
    content = page.get(f"/viewer/api/film/{keys[0]}/thumbnail").content
    sent = page.post("/v1/explain?finding=Atelectasis", content=content, headers={
        "content-type": "image/png"})  # fmt: skip
    assert (sent.status_code, len(threads)) == (200, 1)


def test_similar_films_are_those_of_the_command(page: TestClient, run: Path, model: Model):
    film = got(page, "films", part="test")["films"][0]
    found = got(page, f"film/{film['key']}/similar")["films"]
    choices = {"network": model.name, "top": 8, "patients": "others"}
    expected = similar_to(find_similar(run, [Path(film["image"])], **choices), 0)
    assert [one["image"] for one in found] == [one["image"] for one in expected]
    assert [one["similarity"] for one in found] == pytest.approx(
        [one["similarity"] for one in expected], abs=2e-3
    )
    answer = got(page, f"film/{film['key']}/similar")
    assert (answer["network"], str(answer["left_out"])) == (model.name, film["patient"])
    assert film["patient"] not in {one["patient"] for one in found}


def test_calibration_is_that_of_the_evaluation(page: TestClient, run: Path, model: Model):
    table = pd.read_csv(run / "evaluation" / "reliability.csv")
    mine = table.loc[(table["network"] == model.name) & (table["films"] > 0)]
    bins = got(page, "calibration", part="test")["bins"]
    for finding, rows in mine.groupby("finding"):
        found = pd.DataFrame(bins[str(finding)])
        for name in ("mean_probability", "share", "share_low", "share_high", "films"):
            np.testing.assert_allclose(found[name].astype(float), rows[name], atol=1e-9)


def give(page: TestClient, **given: object) -> Any:
    usual = {
        "film": "0",
        "finding": "Effusion",
        "verdict": "right",
        "reviewer": "A. B.",
        "note": "",
    }
    return page.post("/viewer/api/verdicts", content=json.dumps(usual | given))


def test_verdicts_are_kept_in_the_run_and_scored(
    page: TestClient, run: Path, model: Model, viewer: Viewer
):
    films = viewer.films
    assert films is not None
    label = films.manifest.label[:, model.findings.index("Effusion")]
    present, absent = (np.flatnonzero(label == value) for value in (1, 0))
    for row, verdict in zip(
        present[:4].tolist(), ("right", "right", "wrong", "unsure"), strict=True
    ):
        assert give(page, film=str(row), verdict=verdict, note='a, "b"\n=c').status_code == 200
    assert give(page, film=str(absent[0]), verdict="wrong").json()["label"] == 0
    assert give(page, film=str(present[3]), verdict="wrong").status_code == 200  # a second thought
    assert give(page, film=str(present[0]), reviewer="C. D.", verdict="right").status_code == 200
    words = ["audit", "score-review", str(run / "verdicts" / "sample.csv")]
    done = CliRunner().invoke(app, [*words, str(run / "verdicts" / "answers.csv"), "--json"])
    assert done.exit_code == 0, done.output
    right = {row["sheet"]: row for row in json.loads(done.stdout)["right"]}
    seen, missed = right["Effusion, labelled present"], right["Effusion, labelled absent"]
    assert [seen[k] for k in ("right", "films", "yes", "no", "reviewers")] == [0.5, 4, 2, 2, 2]
    assert [missed[k] for k in ("right", "films", "yes", "no")] == [0, 1, 1, 0]
    shown = got(page, f"film/{present[0]}")["verdicts"]
    assert {(one["reviewer"], one["note"]) for one in shown} == {
        ("A. B.", 'a, "b" =c'), ("C. D.", ""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"verdict": "maybe"}, "right, wrong, unsure"),
        ({"reviewer": "  "}, "a name or initials"),
        ({"film": "a1"}, "a film of the list"),
        ({"film": "60"}, "a film of the list"),
        ({"finding": "Fracture"}, "one of the model's"),
        ({"note": "x" * 3_000}, "a short one"),
        ({"note": 5}, "the texts film, finding"),
        ({"note": "\ud800"}, "halves of letters"),
        ({"reviewer": "A\0B"}, "control characters"),
    ],
)
def test_verdicts_that_mean_nothing_are_refused(
    page: TestClient, given: dict[str, object], named: str
):
    answer = give(page, **given)
    assert (answer.status_code, answer.json()["code"]) == (400, "parameter-invalid")
    assert named in answer.json()["detail"]


def test_a_body_that_is_no_verdict_is_refused(page: TestClient):
    for content in (b"", b"[]", b"{", b"\xff", b"[" * 100_000):
        assert page.post("/viewer/api/verdicts", content=content).status_code == 400


def test_every_verdict_comes_back(tmp_path: Path):
    verdicts = [
        check_verdict(Verdict("a.png", "Mass", label, "R", word, "note"))
        for label in (0, 1)
        for word in ("right", "wrong", "unsure")
    ]
    for one in verdicts:
        keep_verdict(one, tmp_path / "verdicts")
        assert one in read_verdicts(tmp_path / "verdicts")
        keep_verdict(one._replace(verdict=""), tmp_path / "verdicts")
        assert read_verdicts(tmp_path / "verdicts") == []
    assert read_verdicts(tmp_path) == []


def test_answers_that_were_edited_are_read_or_named(tmp_path: Path):
    two = [Verdict("a.png", "Mass", 1, name, "right", "") for name in ("R", "S")]
    for one in two:
        keep_verdict(one, tmp_path)
    file = tmp_path / "answers.csv"
    kept = file.read_text()
    file.write_text(kept.replace("R,yes", "R,Yes ").replace("S,yes", "S,"))
    assert read_verdicts(tmp_path) == two[:1]
    file.write_text(kept.replace("S,yes", "S,yea"))
    with pytest.raises(ValueError, match=r"answers.csv, row 3: answer 'yea' is unknown; expected "):
        read_verdicts(tmp_path)


def test_two_viewers_of_a_run_lose_no_verdict(tmp_path: Path):
    def one(reviewer: str, image: str = "a.png") -> Verdict:
        return Verdict(image, "Mass", 1, reviewer, "wrong", "")

    several = [one(f"R{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(keep_verdict, folder=tmp_path), several))
    assert sorted(read_verdicts(tmp_path)) == several


@pytest.mark.parametrize("where", ["form.csv", "sample.csv"])
def test_another_review_is_left_as_it_is(tmp_path: Path, where: str):
    table = "sheet,finding,place,id,image,label,weight\nMass,Mass,1,x,a.png,1,2.5\n"
    (tmp_path / where).write_text(table)
    with pytest.raises(ValueError, match="review"):
        keep_verdict(Verdict("a.png", "Mass", 1, "R", "right", ""), tmp_path)
    assert (tmp_path / where).read_text() == table
    assert not (tmp_path / "answers.csv").exists()


def test_what_the_run_lacks_is_no_mistake_of_the_client(
    viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its texts name places of the machine, and reach neither the client nor the log."""
    log = list[str]()

    def damaged(*_: object, **__: object) -> None:
        raise ValueError(f"{tmp_path}: found no table")

    assert viewer.run is not None
    settings = ServiceSettings(decoders=1, run=viewer.run.out)
    app = create_app(viewer.model, settings=settings, routes=viewer_routes(viewer), log=log.append)
    monkeypatch.setattr("lucency.deploy.verdicts.read_verdicts", damaged)
    monkeypatch.setattr(Model, "explain", damaged)
    monkeypatch.setattr("lucency.deploy.service.open_collection", damaged)
    tested, sent = "film/0", {"headers": {"content-type": "image/png"}}
    content = cv2.imencode(".png", phantom_grey())[1].tobytes()
    with TestClient(app, base_url=HOME) as page:
        found = [
            page.get(f"/viewer/api/{tested}"),
            page.post("/v1/explain?finding=Effusion", content=content, **sent),
            page.post("/v1/similar", content=content, **sent),
            give(page, film=labelled(viewer)),
        ]
    answers = [(one.status_code, one.json()["code"], one.json()["detail"]) for one in found]
    assert answers == [(500, "internal", "The service failed")] * 4
    lines = [line for line in log if line.startswith("ValueError in test_viewer.py, line ")]
    assert (len(lines), str(tmp_path) in "".join(log)) == (4, False)


def labelled(viewer: Viewer) -> str:
    """Return the key of a film with a label of effusion."""
    assert viewer.films is not None
    label = viewer.films.manifest.label[:, viewer.films.manifest.findings.index("Effusion")]
    return str(np.flatnonzero(~np.isnan(label))[0])


def test_a_folder_of_verdicts_that_another_program_writes_is_busy(
    page: TestClient, viewer: Viewer, run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lucency.deploy.verdicts.LOCK_SECONDS", 0.0)
    (run / "verdicts").mkdir(exist_ok=True)
    with held_lock(run / "verdicts" / LOCK, wait=10.0):
        answer = give(page, film=labelled(viewer))
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert str(run) not in answer.text


def test_a_verdict_that_cannot_be_kept_blocks_no_other(page: TestClient, viewer: Viewer):
    row = labelled(viewer)
    assert give(page, film=row, reviewer="E", note="\ud800").status_code == 400
    assert give(page, film=row, reviewer="E", verdict="unsure").status_code == 200
    assert "E" in {one["reviewer"] for one in got(page, f"film/{row}")["verdicts"]}
    assert give(page, film=row, reviewer="E", verdict="").status_code == 200  # withdrawn
    assert "E" not in {one["reviewer"] for one in got(page, f"film/{row}")["verdicts"]}


def test_keys_that_are_of_no_film_are_refused(page: TestClient):
    for key in (
        "60",
        "-1",
        "1.0",
        "a9",
        "\N{SUPERSCRIPT TWO}",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "0x1",
        "1" * 40,
    ):
        answer = page.get(f"/viewer/api/film/{key}/pixels")
        assert answer.status_code == 400
        assert "the key of a film" in answer.json()["detail"]


def test_a_model_without_a_run_shows_named_films_alone(model: Model, deep_file: Path):
    alone = open_viewer(model, run=None, films=[deep_file])
    with TestClient(served(alone), base_url=HOME) as page:
        about = got(page, "model")
        assert (about["run"], about["films"], about["remark"]) == ("", 0, RUN_ONLY)
        assert len(got(page, "film/a1/prediction")["probability"]) == len(model.findings)
        for path in ("films", "calibration", "film/a1/similar", "film/0"):
            answer = page.get(f"/viewer/api/{path}")
            assert answer.status_code in (400, 404)
            assert answer.json()["code"] in ("parameter-invalid", "not-found")


def test_named_films_are_read_when_they_are_shown(model: Model, tmp_path: Path):
    """All are listed, whatever their number; one that cannot be read is named, and the rest go."""
    for number in range(60):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), DEEP)
    (tmp_path / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    alone = open_viewer(model, run=None, films=[tmp_path])
    with TestClient(served(alone), base_url=HOME) as page:
        added = got(page, "model")["added"]
        assert [film["image"] for film in added] == [f"{number:02d}.png" for number in range(60)]
        lost = page.get(f"/viewer/api/film/{added[7]['key']}/pixels")
        assert (lost.status_code, lost.json()["code"]) == (422, "film-truncated")
        assert lost.json()["detail"].startswith("07.png: ")
        assert page.get(f"/viewer/api/film/{added[8]['key']}/pixels").status_code == 200
    with pytest.raises(ValueError, match="no such file"):
        open_viewer(model, run=None, films=[tmp_path / "none.png"])


def test_a_film_whose_name_is_no_utf_8_is_listed_and_shown(model: Model, tmp_path: Path):
    for name, content in (
        (b"\xff.png", cv2.imencode(".png", DEEP)[1].tobytes()),
        (b"a\xfe.png", b""),
    ):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(content)
    with TestClient(served(open_viewer(model, run=None, films=[tmp_path])), base_url=HOME) as page:
        added = {film["image"]: film["key"] for film in got(page, "model")["added"]}
        keys = [added.pop(name) for name in ("\udcff.png", "a\udcfe.png")]
        shown, lost = (page.get(f"/viewer/api/film/{key}/pixels") for key in keys)
        assert (shown.status_code, added) == (200, {})
        assert (lost.status_code, lost.json()["code"]) == (422, "film-empty")


def test_many_named_films_are_added_at_once(model: Model, deep_file: Path):
    """Where each passes over all before it, the tests end late."""
    viewer = open_viewer(model, run=None)
    for _ in range(100_000):
        add_film(viewer, AddedFilm("film", deep_file, b""))
    assert (len(viewer.added), next(reversed(viewer.added))) == (100_000, "a100000")


def test_a_network_without_maps_has_its_reason(
    page: TestClient, model: Model, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise MethodError("it has no maps of features")

    monkeypatch.setattr(Model, "explain", refuse)
    answer = page.get("/viewer/api/film/a1/heatmap?finding=Infiltration")
    expected = f"no heat map of {model.explained}: it has no maps of features"
    assert (answer.status_code, answer.json()["detail"]) == (400, expected)


def test_dropped_films_are_limited_in_number_and_bytes(
    model: Model, deep_file: Path, monkeypatch: pytest.MonkeyPatch
):
    viewer = open_viewer(model, run=None, films=[deep_file])
    monkeypatch.setattr(viewer_films, "MOST_DROPPED", 3)
    for _ in range(5):
        add_film(viewer, AddedFilm("small", None, b"12345"))
    assert list(viewer.added) == ["a1", "a4", "a5", "a6"]  # named ones stay
    monkeypatch.setattr(viewer_films, "MOST_BYTES", 12)
    add_film(viewer, AddedFilm("large", None, b"12345678"))
    assert list(viewer.added) == ["a1", "a7"]


def test_a_dropped_film_is_decoded_apart_and_only_where_there_is_room(
    model: Model, monkeypatch: pytest.MonkeyPatch
):
    def here(*_: object, **__: object) -> None:
        raise AssertionError("decoded in the service's own process")

    monkeypatch.setattr("lucency.data.images.cv2.imdecode", here)
    content = dicom_bytes((np.arange(64 * 72).reshape(64, 72) % 4096).astype(np.int64))
    monkeypatch.setattr("lucency.deploy.native_film.decode_dicom_deep", here)
    viewer = open_viewer(model, run=None)
    with TestClient(served(viewer), base_url=HOME) as page:
        key = page.post("/viewer/api/films", content=content).json()["key"]
        assert page.get(f"/viewer/api/film/{key}/pixels").status_code == 200
    with TestClient(served(viewer, waiting=0), base_url=HOME) as page:
        refused = page.post("/viewer/api/films", content=content)
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert page.get(f"/viewer/api/film/{key}/pixels").json()["code"] == "busy"


def test_bytes_of_films_that_are_shown_are_limited(model: Model, deep_file: Path):
    viewer, content = open_viewer(model, run=None, films=[deep_file]), deep_file.read_bytes()
    assert len(content) < DEEP.nbytes
    for limit in (len(content) - 1, DEEP.nbytes - 1):  # of the file, of the pixels
        with TestClient(served(viewer, shown_bytes=limit), base_url=HOME) as page:
            for _ in range(2):  # what was refused is given back
                answer = page.get("/viewer/api/film/a1/pixels")
                assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert page.get("/viewer/api/film/a1/thumbnail").is_error == (limit < len(content))


def test_a_dropped_film_of_twelve_bits_is_predicted_as_on_disk(
    page: TestClient, model: Model, tmp_path: Path
):
    """Padding is black and depth that of the training films, whatever the window that is shown."""
    grey = phantom_grey().astype(np.uint16)
    cv2.imwrite(str(tmp_path / "twelve.png"), grey * 16)
    padded = stored_for(phantom_grey())
    padded[:, :20] = 4095
    film = dicom_bytes(padded, PixelPaddingValue=4095, WindowCenter=1000, WindowWidth=800)
    (tmp_path / "padded.dcm").write_bytes(film)
    for file in sorted(tmp_path.iterdir()):
        head = {"X-Film-Name": file.name}
        key = page.post("/viewer/api/films", content=file.read_bytes(), headers=head).json()["key"]
        expected = model.predict(file).probability[0]
        for _ in range(2):
            found = got(page, f"film/{key}/prediction")["probability"]
            np.testing.assert_allclose(found, expected, atol=1e-6)
        expected = model.explain(file, findings=["Effusion"]).maps
        made = got(page, f"film/{key}/heatmap", finding="Effusion")
        np.testing.assert_allclose(made["grid"], expected.grid[0, 0], atol=1e-5)
        assert len(got(page, f"film/{key}/similar")["films"]) == 8
        assert got(page, f"film/{key}/similar")["left_out"] is None


def test_an_entry_whose_name_holds_spaces_has_its_predictions(
    finished: Path, tmp_path: Path, model: Model
):
    run = copy_run(finished, tmp_path / "run")
    known_maps(run, model.name)
    fitted_views(run, name="three views", place="three-views")
    beside = run / "predictions" / model.name / "predictions.npz"
    shutil.copy(beside, run / "ensemble" / "three-views")
    views = lu.load(run, model="three views")
    viewer = open_viewer(views, run=run)
    assert viewer.films is not None
    predictions = lu.load_predictions(beside)
    row = pd.Index(viewer.films.manifest.image).get_indexer(pd.Index(predictions.image))
    np.testing.assert_array_equal(viewer.films.probability[row], predictions.probability)
    with TestClient(served(viewer), base_url=HOME) as page:
        made = got(page, f"film/{row[0]}/heatmap", finding="Effusion")
        assert made["network"] == views.explained != "three views"
        kept = views.explained == model.name and predictions.part[0] == "test"
        assert (np.argwhere(np.array(made["grid"]) == 1).tolist() == [list(HOT)]) == kept


def test_heat_maps_that_were_exchanged_are_named_and_others_are_made(
    finished: Path, tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
):
    run = copy_run(finished, tmp_path / "run")
    maps = run / "explanation" / "maps-0.npz"
    known = load_heatmaps(maps)
    network = read_heatmap_fields(maps.parent).network
    other = replace(known, grid=known.grid * 2 + 1)
    save_heatmaps(other, maps)
    viewer = open_viewer(lu.load(run, model=network), run=run)
    with TestClient(served(viewer), base_url=HOME) as page:
        assert viewer.films is not None
        row = viewer.films.manifest.image.tolist().index(known.image[0])
        made = got(page, f"film/{row}/heatmap", finding=known.findings[0])
    assert not np.allclose(made["grid"], other.grid[0, 0])
    assert "maps-0.npz was changed or replaced" in capsys.readouterr().err


def test_the_browser_s_command_line_does_not_hold_the_token(monkeypatch: pytest.MonkeyPatch):
    opened = list[str]()
    monkeypatch.setattr("webbrowser.open", opened.append)
    settings = ServiceSettings(token="a-token-of-the-tests")
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        start._open_browser(replace(settings, port=port))
    page = Path(opened[0].removeprefix("file://"))
    assert settings.token not in opened[0]
    assert f"http://127.0.0.1:{port}/?token={settings.token}" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    page.unlink()
