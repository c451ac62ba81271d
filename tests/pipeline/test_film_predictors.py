"""What predicts films: the ONNX file beside weights, and films known by name or look."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_predict import classifier

from lucency.core import locks
from lucency.core.locks import held_lock
from lucency.core.manifest import unlabelled
from lucency.ensemble.fitted import FittedPredictor, Rule, save_predictor
from lucency.evaluation.calibration import no_recalibration
from lucency.models import onnx_export
from lucency.models.classifier import load_classifier, save_classifier
from lucency.models.metadata import read_metadata
from lucency.pipeline import film_predictors
from lucency.pipeline.film_predictors import FilmOutputs, Home, find_home, open_predictor
from lucency.pipeline.library import load
from lucency.pipeline.run import refuse_trained_again
from toys import FINDINGS, toy_films

FILMS = toy_films(4)
NAME = "test_efficientnet"
WRITTEN = "classifier.onnx"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network that has predicted once."""
    folder = tmp_path_factory.mktemp("made") / NAME
    folder.mkdir()
    save_classifier(classifier(FILMS.preparation), folder)
    predicted(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / NAME))


@pytest.fixture
def exports(made: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are exported, from a copy: an export takes seconds."""
    written: list[Path] = []
    whole, metadata = (made / WRITTEN).read_bytes(), film_predictors.open_onnx(made / WRITTEN)

    def copied(network: Any, file: Path, **about: Any) -> None:
        assert about["metadata"].keys() == metadata.metadata.keys()
        written.append(file)
        file.write_bytes(whole)

    monkeypatch.setattr(onnx_export, "write_onnx", copied)
    return written


def predicted(folder: Path, **how: str) -> np.ndarray:
    return open_predictor(folder, **how).predict(FILMS).logit


def test_the_file_is_made_once_and_predicts_as_torch(
    folder: Path, exports: list[Path], capsys: pytest.CaptureFixture[str]
):
    np.testing.assert_allclose(predicted(folder), predicted(folder, engine="torch"), atol=1e-4)
    assert exports == []
    (folder / WRITTEN).unlink()
    predicted(folder)
    assert exports == [folder / WRITTEN]
    assert f"Exporting {NAME} for ONNX Runtime, once" in capsys.readouterr().err


def test_a_damaged_file_and_one_of_other_weights_are_made_anew(folder: Path, exports: list[Path]):
    whole = (folder / WRITTEN).read_bytes()
    (folder / WRITTEN).write_bytes(whole[: len(whole) // 2])
    predicted(folder)
    assert len(exports) == 1
    assert (folder / WRITTEN).read_bytes() == whole
    other = load_classifier(folder)
    for parameter in other.network.parameters():
        parameter.data.mul_(1.01)
    save_classifier(other, folder)
    found = predicted(folder)  # the copy is of the old weights, which the comparison finds
    assert len(exports) == 2
    np.testing.assert_array_equal(found, predicted(folder, engine="torch"))


def test_a_fingerprint_of_the_file_before_is_replaced(
    folder: Path, exports: list[Path], capsys: pytest.CaptureFixture[str]
):
    known = (folder / WRITTEN).with_suffix(film_predictors.SUM)
    right = known.read_text()
    known.write_text("0123456789abcdef")
    for _ in range(2):
        predicted(folder)
        assert exports == [folder / WRITTEN]
        assert known.read_text() == right
    assert "runs on torch" not in capsys.readouterr().err


def test_a_file_that_differs_from_torch_is_not_used(
    folder: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    (folder / WRITTEN).unlink()
    apart = onnx_export.Differences(logit=0.0, feature=0.01)
    monkeypatch.setattr(onnx_export, "largest_differences", lambda *_, **__: apart)
    np.testing.assert_array_equal(predicted(folder), predicted(folder, engine="torch"))
    assert "features differ from torch's by up to 0.01 of their range" in capsys.readouterr().err
    assert not (folder / WRITTEN).exists()


def test_a_folder_that_cannot_be_written_to_predicts_on_torch(
    folder: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    (folder / WRITTEN).unlink()

    def refused(file: Path, *, wait: float) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(film_predictors, "held_lock", refused)
    np.testing.assert_array_equal(predicted(folder), predicted(folder, engine="torch"))
    assert "runs on torch" in capsys.readouterr().err
    assert exports == []


def test_two_at_once_make_one_file(folder: Path, exports: list[Path]):
    (folder / WRITTEN).unlink()
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(predicted, [folder, folder])
    np.testing.assert_array_equal(one, other)
    assert len(exports) == 1


def test_a_process_that_waits_says_so_and_predicts_on_torch_in_the_end(
    folder: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    (folder / WRITTEN).unlink()
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(film_predictors, "WAIT_SECONDS", 0.2)
    with held_lock(folder / f"{WRITTEN}.lock", wait=0.0):  # as a process that was suspended does
        np.testing.assert_array_equal(predicted(folder), predicted(folder, engine="torch"))
    lines = capsys.readouterr().err
    assert f"{WRITTEN}.lock: another process holds it; waiting" in lines
    assert "runs on torch" in lines
    assert exports == []


def test_a_copy_of_a_network_s_folder_predicts_by_its_own_files(folder: Path, tmp_path: Path):
    place = tmp_path / "run" / "networks"
    for name, offset in (("one", 0.0), ("one-before", 2.0)):
        known = load_classifier(folder)
        line = replace(known.recalibration, offset=np.full(len(known.findings), offset))
        (place / name).mkdir(parents=True)
        save_classifier(replace(known, name="one", recalibration=line), place / name)
        (place / name / "receipt.json").write_text("{}")
    run, found = tmp_path / "run", {}
    for name in ("one", "one-before"):
        predictor = open_predictor(run, name=name, engine="torch")
        found[name] = predictor.predict(FILMS)
        assert found[name].network == predictor.name == name
        assert [*predictor.home.opened] == [name]
    assert found["one-before"].offset.tolist() == [2.0] * len(FINDINGS)
    shutil.rmtree(place / "one")
    with pytest.raises(ValueError, match=r"one-before holds the network one: .* rename it"):
        open_predictor(run, name="one-before", engine="torch")


def test_what_is_known_of_a_network_stays_that_of_the_weights_in_memory(
    folder: Path, tmp_path: Path
):
    home = Home(folder=folder, networks={NAME: folder}, engine="torch")
    films = FilmOutputs(home=home, prepared=FILMS)
    before = films.calibrated(NAME)
    known = load_classifier(folder)
    line = replace(known.recalibration, offset=np.full(len(known.findings), 5.0))
    save_classifier(replace(known, recalibration=line), folder)  # trained anew meanwhile
    after = FilmOutputs(home=home, prepared=FILMS).calibrated(NAME)
    np.testing.assert_array_equal(before, after)


def test_an_ensemble_of_a_network_that_was_trained_again_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lucency.pipeline.run.command_of", lambda _: "lucency run p.toml")
    weights = read_metadata(folder).weights
    assert weights
    refuse_trained_again(tmp_path, NAME, weights=weights)  # nothing was predicted
    receipt = tmp_path / "predictions" / NAME / "receipt.json"
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"weights": weights}))
    refuse_trained_again(tmp_path, NAME, weights=weights)
    with pytest.raises(ValueError, match=rf"{NAME} was trained again since .* \(--model\)"):
        refuse_trained_again(tmp_path, NAME, weights="0123456789abcdef")


def test_an_ensemble_is_opened_unless_one_of_its_networks_was_trained_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    receipt = run / "predictions" / NAME / "receipt.json"
    for place in (run / "both", receipt.parent):
        place.mkdir(parents=True)
    arrays = {"weight": np.ones((1, len(FINDINGS))), "known": np.empty((0, 0, 0))}
    about = {"method": "mean-logit", "space": "logit"}
    known = read_metadata(folder)
    fitted = FittedPredictor(
        name="both", kind="ensemble", findings=known.findings, preparation=known.preparation,
        split=known.split, recalibration=no_recalibration(len(FINDINGS)),
        threshold=np.full(len(FINDINGS), 0.5), validation_auc=0.75,
        rule=Rule(name="blend", sources=(NAME,), about=about, arrays=arrays),
    )  # fmt: skip
    save_predictor(fitted, run / "both")
    monkeypatch.setattr("lucency.pipeline.run.command_of", lambda _: "lucency run p.toml")
    monkeypatch.setattr(
        film_predictors,
        "find_home",
        lambda _: Home(folder=run, networks={NAME: folder}, fitted={"both": run / "both"}),
    )
    receipt.write_text(json.dumps({"weights": known.weights}))
    assert open_predictor(run, name="both").kind == "ensemble"
    receipt.write_text(json.dumps({"weights": "0123456789abcdef"}))
    with pytest.raises(ValueError, match=rf"{NAME} was trained again since .* \(--model\)"):
        open_predictor(run, name="both")
    assert open_predictor(run, name=NAME).kind == "network"


def test_an_export_that_lies_in_itself_is_refused(tmp_path: Path):
    about = {"format": "lucency model", "version": 1, "kind": "blend", "name": "both"}
    plain = json.dumps({**about, "findings": ["Mass"], "fingerprints": {}})
    (tmp_path / "model.json").write_text(plain)
    (tmp_path / "members").mkdir()
    for number in "12":
        (tmp_path / "members" / number).symlink_to("..")
    with pytest.raises(ValueError, match="lies in itself, by a link"):
        find_home(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**about, "findings": ["Mass"]}))
    with pytest.raises(ValueError, match=r"model\.json cannot be read \('fingerprints' is absent"):
        find_home(tmp_path)


def test_an_unknown_engine_and_name_are_refused(made: Path):
    with pytest.raises(ValueError, match="engine 'jax' is unknown: expected onnx or torch"):
        open_predictor(made, engine="jax")
    with pytest.raises(ValueError, match=f"is {NAME} alone; expected no --model"):
        open_predictor(made, name="another")


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("a/x.png", 0), ("elsewhere/a/x.png", 0), ("b/x.png", 1), ("x.png", -1), ("Y", 2),
        ("z.png", -1), ("0/y.png", 2),
    ],
)  # fmt: skip
def test_a_film_is_known_by_the_rule_of_all_files(name: str, row: int):
    films = unlabelled(
        ["a/x.png", "b/x.png", "y.png"],
        FILMS.pixels[:3],
        findings=FINDINGS,
        preparation=FILMS.preparation,
    )
    home = Home(folder=Path(), networks={})
    vars(home)["known"] = films.manifest
    assert home.row_of(name) == row


def test_views_of_a_film_from_elsewhere_depend_on_its_file_s_name():
    home = Home(folder=Path(), networks={})
    about = {"findings": FINDINGS, "preparation": FILMS.preparation}
    prepared = unlabelled(["here/a.png", "b.png"], FILMS.pixels[:2], **about)
    assert FilmOutputs(home=home, prepared=prepared).names == ["a.png", "b.png"]


class Given:
    """Features of films whose patients are not known."""

    def __init__(self, feature: np.ndarray, patient: np.ndarray) -> None:
        self.given, self.patient = feature, patient

    def calibrated(self, name: str) -> np.ndarray:
        raise AssertionError(name)

    def viewed(self, network: str, *, view: int, recipe: str, seed: int) -> np.ndarray:
        raise AssertionError(network)

    def feature(self, source: str) -> np.ndarray:
        return self.given


def test_a_training_film_under_another_name_is_not_voted_for_by_its_patient():
    generator = np.random.default_rng(0)
    known = generator.normal(size=(30, 16)).astype(np.float32)
    direction = (known / np.linalg.norm(known, axis=1, keepdims=True)).astype(np.float16)
    label = (generator.random((30, 2)) < 0.4).astype(np.float32)
    arrays = {"direction": direction, "patient": np.arange(30) // 3, "label": label}
    rule = Rule(name="neighbours", sources=("net",), about={"neighbours": 4}, arrays=arrays)
    nobody, own = np.full(3, -1), np.zeros(3, dtype=np.int64)
    unknown, named = (rule.logit(Given(known[:3], patient)) for patient in (nobody, own))
    np.testing.assert_array_equal(unknown, named)
    near = known[:3] + np.float32(0.05)
    assert (rule.logit(Given(near, nobody)) != rule.logit(Given(near, own))).any()


def test_an_empty_name_is_no_folder_of_films(folder: Path):
    with pytest.raises(ValueError, match="found an empty name"):
        load(folder).predict("")
