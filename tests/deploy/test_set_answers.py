"""Sets are stored and exported, and stand in the answers of predict and the service."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from jsonschema import validate

from lucency.core.files import write_table
from lucency.core.manifest import read_table
from lucency.core.predictions import load_predictions
from lucency.core.saved_files import read_json
from lucency.data.csv_tables import read_scores
from lucency.deploy.film_answers import ModelAbout, described_model, predicted_findings
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.openapi import openapi_document
from lucency.evaluation.conformal import ConformalSets, fit_sets, sets_as_plain
from lucency.models.metadata import METADATA, read_metadata
from lucency.pipeline import film_inference
from lucency.pipeline.film_inference import predict_disk, predict_files
from lucency.pipeline.film_predictors import FilmPredictor, open_predictor
from lucency.pipeline.library import load
from workplace import FEW, NETWORKS

FOLDER = Path("runs") / "demo"


@pytest.fixture(scope="module")
def predictor(finished: Path) -> FilmPredictor:
    return open_predictor(finished / FOLDER, name=NETWORKS[0], engine="torch")


@pytest.fixture(scope="module")
def films(finished: Path) -> list[Path]:
    return sorted((finished / "films").glob("*.png"))[:5]


def bounds(probability: np.ndarray) -> ConformalSets:
    """Return sets of which these probabilities have several kinds."""
    middle = np.median(probability, axis=0)
    return ConformalSets(
        error=0.1,
        present_from=middle - 1e-9,
        absent_to=middle + 1e-9,
        note=("", "", ""),
        missed=0.1,
        cutoff=float(np.median(probability)),
        cutoff_note="",
    )


def test_a_trained_network_s_sets_are_those_of_its_validation_films(finished: Path):
    place = finished / FOLDER
    for name in NETWORKS:
        known = load_predictions(place / "predictions" / name / "predictions.npz").of("val")
        found = read_metadata(place / "networks" / name).sets
        assert found is not None
        expected = sets_as_plain(fit_sets(known, error=0.1, missed=0.1))
        for key, value in sets_as_plain(found).items():
            if isinstance(value, list) and key != "note":
                np.testing.assert_allclose(value, expected[key], atol=1e-6)
            else:
                assert value == expected[key]


def test_a_table_of_films_has_sets_where_the_model_has(
    predictor: FilmPredictor, films: list[Path], tmp_path: Path
):
    plain, _ = predict_files(replace(predictor, sets=None), files=films)
    assert list(plain) == ["film", "called", *FEW, "quality"]
    probability = plain.loc[:, FEW].to_numpy()
    sets = bounds(probability)
    table, _ = predict_files(replace(predictor, sets=sets), files=films)
    columns = [f"{one}_set" for one in FEW]
    assert list(table) == ["film", "called", *FEW, "possible", *columns, "quality"]
    expected = sets.words(probability)
    assert set(expected.ravel()) >= {"present", "absent", "undecided"}
    np.testing.assert_array_equal(table.loc[:, columns].to_numpy(dtype=str), expected)
    names = ["|".join(np.array(FEW)[row]) for row in probability >= sets.cutoff]
    assert table["possible"].tolist() == names
    assert table.drop(columns=["possible", *columns]).equals(plain)
    write_table(table, tmp_path / "films.csv")
    assert read_scores(tmp_path / "films.csv", findings=tuple(FEW)).findings == tuple(FEW)


def test_findings_that_are_undecided_on_every_film_are_named(
    predictor: FilmPredictor,
    films: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def messages(sets: ConformalSets) -> str:
        opened = replace(predictor, sets=sets)
        monkeypatch.setattr(film_inference, "open_predictor", lambda *_, **about: opened)
        predict_disk(Path("model"), films, name=NETWORKS[0])
        return capsys.readouterr().err

    everything = ConformalSets(
        error=0.1,
        present_from=np.array([0.0, 1.0, 0.0]),
        absent_to=np.ones(3),
        note=("always holds present: 3 patients with it, expected 9 or more", "", ""),
        missed=0.1,
        cutoff=0.0,
        cutoff_note="",
    )
    line = messages(everything)
    first = f"{FEW[0]} (always holds present: 3 patients with it, expected 9 or more)"
    assert (
        f"Sets of error 0.1: 2 of 3 findings undecided on every film: {first}; {FEW[2]}\n" in line
    )
    alike = messages(replace(everything, note=(everything.note[0],) * 3))
    assert f": {FEW[0]}, {FEW[2]} (always" in alike
    assert alike.count("always holds") == 1
    assert "undecided" not in messages(replace(everything, present_from=np.ones(3)))


def test_the_service_answers_sets_where_the_model_has(
    finished: Path, predictor: FilmPredictor, films: list[Path]
):
    model = load(finished / FOLDER, model=NETWORKS[0])
    predicted = model.predict(films[0])
    sets = bounds(predicted.probability)
    about = {"findings": model.findings, "threshold": model.threshold}
    with_sets = predicted_findings(SimpleNamespace(**about, sets=sets), predicted)
    without = predicted_findings(SimpleNamespace(**about, sets=None), predicted)
    assert [one["set"] for one in with_sets.values()] == ["undecided"] * 3
    reach = predicted.probability[0] >= sets.cutoff
    assert [one["possible"] for one in with_sets.values()] == reach.tolist()
    assert {key for one in without.values() for key in one} == {
        "probability", "threshold", "present", "logit",
    }  # fmt: skip
    schemas = openapi_document(ServiceSettings(), FEW)["components"]["schemas"]
    for one in (*with_sets.values(), *without.values()):
        validate(json.loads(json.dumps(one)), schemas["Finding"])
    described = described_model(model, ModelAbout(model.name, model.kind, ""))
    assert described["sets"] == sets_as_plain(model.sets)


def test_a_network_of_before_there_were_sets_is_read(finished: Path, tmp_path: Path):
    shutil.copytree(finished / FOLDER / "networks" / NETWORKS[1], tmp_path / "old")
    file = tmp_path / "old" / METADATA
    plain = read_json(file)
    assert plain.pop("sets")["error"] == 0.1
    file.write_text(json.dumps(plain))
    assert read_metadata(tmp_path / "old").sets is None
    assert open_predictor(tmp_path / "old").sets is None


def test_a_run_counts_what_its_sets_cover(finished: Path):
    place = finished / FOLDER / "coverage"
    coverage = read_table(place / "coverage.csv", text=("network", "finding", "label"))
    assert set(coverage["network"]) == set(NETWORKS)
    assert set(coverage["finding"]) == {*FEW, "macro"}
    page = (finished / FOLDER / "report" / "report.html").read_text()
    assert '<section id="abstain">' in page


def test_sets_of_an_ensemble_are_kept(combined: Path):
    found = open_predictor(combined, name="mean-probability")
    assert found.sets is not None
    assert found.sets.present_from.shape == (3,)
