"""The viewer's routes: films that filter, pixels as files have them, verdicts that are read."""

import json
import re
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from typer.testing import CliRunner

import lucency as lu
from dicom_films import dicom_bytes
from lucency.audit.label_audit import audit_label_errors
from lucency.cli.app import app
from lucency.core.manifest import FINDINGS, Manifest, empty_boxes
from lucency.deploy import film_list
from lucency.deploy.film_list import FilmFilter, FilmList, select_films
from lucency.deploy.verdicts import Verdict, check_verdict, read_verdicts, save_verdicts
from lucency.deploy.viewer import FILES, RUN_ONLY, Viewer, open_viewer, viewer_routes
from lucency.pipeline.library import Model
from lucency.pipeline.similar_films import find_similar, similar_to
from viewer_run import HOT, copy_run, known_maps

WHOLE = 112_120
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
    with TestClient(Starlette(routes=viewer_routes(viewer))) as client:
        yield client


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
        assert page.get(f"/viewer/{name}").status_code == 404


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
    told = got(page, "model")
    assert (told["name"], told["findings"]) == (model.name, list(model.findings))
    assert told["threshold"] == model.threshold.tolist()
    assert (told["run"], told["films"], told["remark"]) == ("demo", 60, "")
    assert [film["image"] for film in told["added"]] == ["deep.png"]


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
    assert answer.status_code == 422
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
    maps = model.explain(path, method="grad-cam", findings=["Effusion"]).maps
    np.testing.assert_allclose(made["grid"], maps.grid[0, 0], atol=1e-5)
    assert made["down"] == maps.centres.down.tolist()
    answer = page.get(f"/viewer/api/film/{tested}/heatmap?finding=Fracture")
    assert (answer.status_code, "Fracture" in answer.json()["detail"]) == (422, True)


def test_similar_films_are_those_of_the_command(page: TestClient, run: Path, model: Model):
    film = got(page, "films", part="test")["films"][0]
    found = got(page, f"film/{film['key']}/similar")["films"]
    choices = {"network": model.name, "top": 8, "patients": "others"}
    expected = similar_to(find_similar(run, [Path(film["image"])], **choices), 0)
    assert [one["image"] for one in found] == [one["image"] for one in expected]
    assert [one["similarity"] for one in found] == pytest.approx(
        [one["similarity"] for one in expected], abs=2e-3
    )
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
    words = ["audit", "score-review", str(run / "review" / "sample.csv")]
    done = CliRunner().invoke(app, [*words, str(run / "review" / "answers.csv"), "--json"])
    assert done.exit_code == 0, done.output
    right = {row["sheet"]: row for row in json.loads(done.stdout)["right"]}
    seen, missed = right["Effusion, labelled present"], right["Effusion, labelled absent"]
    assert [seen[k] for k in ("right", "films", "yes", "no", "reviewers")] == [0.5, 4, 2, 2, 2]
    assert [missed[k] for k in ("right", "films", "yes", "no")] == [0, 1, 1, 0]
    again = open_viewer(model, run=run)
    assert again.reviews == viewer.reviews
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
    ],
)
def test_verdicts_that_mean_nothing_are_refused(
    page: TestClient, given: dict[str, object], named: str
):
    answer = give(page, **given)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_a_body_that_is_no_verdict_is_refused(page: TestClient):
    for content in (b"", b"[]", b"{", b"\xff"):
        assert page.post("/viewer/api/verdicts", content=content).status_code == 422


def test_every_verdict_comes_back(tmp_path: Path):
    verdicts = [
        check_verdict(Verdict("a.png", "Mass", label, "R", word, "note"))
        for label in (0, 1)
        for word in ("right", "wrong", "unsure")
    ]
    for one in verdicts:
        save_verdicts([one], tmp_path / "review")
        assert read_verdicts(tmp_path / "review") == [one]
    assert read_verdicts(tmp_path) == []


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
        assert answer.status_code == 422
        assert "the key of a film" in answer.json()["detail"]


def test_a_model_without_a_run_shows_named_films_alone(model: Model, deep_file: Path):
    alone = open_viewer(model, run=None, films=[deep_file])
    with TestClient(Starlette(routes=viewer_routes(alone))) as page:
        told = got(page, "model")
        assert (told["run"], told["films"], told["remark"]) == ("", 0, RUN_ONLY)
        assert len(got(page, "film/a1/prediction")["probability"]) == len(model.findings)
        for path in ("films", "calibration", "film/a1/similar", "film/0"):
            answer = page.get(f"/viewer/api/{path}")
            assert answer.status_code == 422


def test_an_unreadable_film_is_named_before_the_page_opens(model: Model, tmp_path: Path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"cut\.png: truncated"):
        open_viewer(model, run=None, films=[tmp_path / "cut.png"])
