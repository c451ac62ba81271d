"""Films unlike the training films: found by a run, stored with its networks, in every answer."""

import json
import shutil
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pandas as pd
import pytest

from lucency.config.protocol import read_protocol
from lucency.core.manifest import load_prepared
from lucency.core.stage import Failures
from lucency.deploy.model_export import export_model
from lucency.evaluation.unfamiliar_results import ORDINARY, load_unfamiliar
from lucency.evaluation.unfamiliarity import (
    FILE,
    FOLDER,
    SCORES,
    UNLIKE,
    load_unfamiliarity,
    mahalanobis,
)
from lucency.phantom.aliens import ALIENS
from lucency.pipeline import stages, unfamiliar_stage
from lucency.pipeline.film_inference import films_for_programs, predict_disk
from lucency.pipeline.library import RunResult, load
from lucency.pipeline.run import keep_protocol, open_run, open_run_folder
from workplace import NETWORKS

pytestmark = pytest.mark.usefixtures("figures_once")
SCHEMA = Path(stages.__file__).parents[1] / "deploy" / "model.schema.json"
REFUSED, FILMS = 0.3, 8


@pytest.fixture(scope="module")
def strange(finished: Path, tmp_path_factory: pytest.TempPathFactory, figures_once: None) -> Path:
    """The finished run, continued with a protocol that stores a distance; with an ensemble."""
    out = tmp_path_factory.mktemp("strange") / "run"
    shutil.copytree(finished / "runs" / "demo", out)
    changes = ["unfamiliar.score=mahalanobis", f"unfamiliar.refused={REFUSED}"]
    changes += [f"unfamiliar.films={FILMS}", 'ensemble.ensembles=["mean-probability"]']
    protocol = read_protocol(out / "protocol.toml", changes=changes)
    run = open_run(protocol, out=out, workers=1)
    assert stages.unfamiliar(run)
    stages.ensembles(run)
    keep_protocol(run)
    return out


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of noise."""
    file = tmp_path_factory.mktemp("noise") / "noise.png"
    picture = ALIENS["noise"](np.zeros((64, 64), np.uint8), np.random.default_rng(5))
    assert cv2.imwrite(str(file), picture)
    return file


def test_a_run_without_a_distance_has_no_such_chapter(finished: Path):
    run = open_run_folder(finished / "runs" / "demo")
    assert not stages.unfamiliar(run)
    assert not (run.out / FOLDER).exists()
    assert 'id="unfamiliar"' not in (run.out / "report" / "report.html").read_text()
    assert load(run.out, model=NETWORKS[0]).predictor.watch is None


def test_every_kind_of_alien_is_compared_by_every_score(strange: Path):
    found = load_unfamiliar(strange / FOLDER)
    pairs = {(row.kind, row.score) for row in found.aliens.itertuples()}
    assert pairs == {(kind, score) for kind in ALIENS for score in SCORES}
    assert (found.aliens["films"] == min(FILMS, found.refused["films"][0])).all()
    area = found.aliens.set_index(["kind", "score"])["auc"]
    for kind in ("noise", "photograph"):
        assert area[kind, "mahalanobis"] > 0.9
        assert area[kind, "neighbour"] > 0.9
    assert found.refused["kind"].tolist() == [ORDINARY, *ALIENS]
    assert found.refused["share"].between(found.refused["low"], found.refused["high"]).all()


@pytest.mark.slow
def test_the_page_has_the_chapter(strange: Path):
    page = stages.report(open_run_folder(strange)).read_text()
    assert Failures(strange / "failed").reasons() == {}
    assert '<h3 id="unfamiliar-films">' in page
    assert load_unfamiliar(strange / FOLDER).conclusion in page


def test_no_external_test_has_the_name_of_an_alien():
    """Names of external tests hold no blank, what their films are called does."""
    assert not any(" " in kind for kind in ALIENS)
    assert unfamiliar_stage._kind_of("noise") == "external test noise"


def test_the_training_films_that_count_are_those_of_the_sample(
    strange: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(unfamiliar_stage, "MOST_TRAINING", 5)
    trained = stages.trained(open_run_folder(strange))
    unfamiliar_stage._write_distance(trained, NETWORKS[0], tmp_path)
    assert load_unfamiliarity(tmp_path).training == 5


def test_what_the_stored_distance_refuses_of_test_films_is_what_the_table_says(strange: Path):
    run, found = open_run_folder(strange), load_unfamiliar(strange / FOLDER)
    network = found.about["network"]
    stored = load_unfamiliarity(strange / "networks" / network / FOLDER)
    test = stages.trained(run).predictions_of(network).of("test")
    out = stored.refuses(stored.of(test.logit, test.feature))
    by_patient = pd.Series(out).groupby(test.patient).mean()
    row = found.refused.iloc[0]
    assert (row["refused"], row["films"]) == (out.sum(), len(test))
    assert row["share"] == pytest.approx(by_patient.mean())


def test_every_network_keeps_a_distance_without_a_single_film(strange: Path):
    for name in NETWORKS:
        place = strange / "networks" / name / FOLDER
        stored = load_unfamiliarity(place)
        films = stages.trained(open_run_folder(strange)).predictions_of(name).of("val")
        assert (stored.score, stored.refused) == ("mahalanobis", REFUSED)
        assert (stored.films, stored.patients) == (len(films), len(set(films.patient.tolist())))
        assert (place / FILE).stat().st_size < 5e6
        feature = np.load(strange / "features" / name / "feature.npy")
        rows = np.concatenate([stored.spread.direction, stored.spread.mean[None]])
        assert not (rows[:, None] == feature[None]).all(axis=2).any()


def test_a_finished_run_is_not_done_again(strange: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unfamiliar_stage, "draw_aliens", None)
    monkeypatch.setattr(unfamiliar_stage, "fit_unfamiliarity", None)
    assert RunResult(run=open_run_folder(strange)).unfamiliar.conclusion


def test_an_alien_depends_on_its_film_and_kind_alone(strange: Path):
    films = load_prepared(strange / "prepared")
    draw = unfamiliar_stage.draw_aliens
    about = {"seed": 3, "progress": lambda *_: None}
    several = draw(films, rows=np.array([4, 2, 9]), **about)
    alone = draw(films, rows=np.array([2]), **about)
    for kind in ALIENS:
        assert (several[kind][1] == alone[kind][0]).all()
        assert several[kind].shape[1:] == films.pixels.shape[1:]


def test_predict_says_what_is_not_like_the_training_films(
    strange: Path, noise: Path, capsys: pytest.CaptureFixture[str]
):
    """By the network alone, by an ensemble of networks, from Python and exported, all the same."""
    folder = strange / "phantom" / "images"
    film = sorted(folder.iterdir())[0] if folder.is_dir() else noise
    name, table = predict_disk(strange, [film, noise], name=NETWORKS[0], engine="torch")
    rows = table.set_index("film")
    assert rows.loc[str(noise), "note"] == UNLIKE
    assert rows.loc[str(noise), "unfamiliarity"] >= 1 - REFUSED
    assert rows.loc[str(film), "unfamiliarity"] < rows.loc[str(noise), "unfamiliarity"]
    assert f"{UNLIKE}: {noise}" in capsys.readouterr().err.replace(f"{film}, ", "")
    answer = films_for_programs(name, table)["films"]
    assert isinstance(answer, list)
    assert answer[-1]["note"] == UNLIKE
    both = load(strange, model="mean-probability", engine="torch").predict(noise)
    assert both.unfamiliarity.tolist() == [
        load(strange, model=NETWORKS[0], engine="torch").predict(noise).unfamiliarity[0]
    ]


@pytest.mark.slow
def test_the_distance_is_exported_with_the_model(strange: Path, noise: Path, tmp_path: Path):
    out = export_model(strange, name=NETWORKS[1], out=tmp_path / "model")
    plain = json.loads((out / "model.json").read_text())
    jsonschema.validate(plain, json.loads(SCHEMA.read_text()))
    assert plain["unfamiliarity"]["refused"] == REFUSED
    own = strange / "networks" / NETWORKS[1] / FOLDER / FILE
    assert (out / plain["unfamiliarity"]["file"]).read_bytes() == own.read_bytes()
    assert UNLIKE in (out / "MODEL_CARD.md").read_text()
    exported, known = load(out, engine="onnx"), load(strange, model=NETWORKS[1], engine="torch")
    films = [noise, *sorted((strange / "phantom" / "images").glob("*"))[:6]]
    spread = load_unfamiliarity(out / FOLDER).known
    one, other = (
        mahalanobis(found.logit, found.feature, spread)
        for found in (exported.predict(films), known.predict(films))
    )
    np.testing.assert_allclose(one, other, rtol=1e-3)
    again = export_model(strange, name=NETWORKS[1], out=tmp_path / "model")
    assert again == out
