"""Recalibration and thresholds belong to the classifier: kept on disk, and applied film by film."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import f1_score

from layouts import write_chexpert
from lucency.cli.output import do_stage
from lucency.config.sections import EvaluationChoices, Source
from lucency.core.manifest import Preparation, Prepared
from lucency.core.plan import Plan, originals
from lucency.core.predictions import load_predictions
from lucency.core.saved_files import read_json
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film
from lucency.evaluation.calibration import (
    RECALIBRATIONS,
    Recalibration,
    no_recalibration,
    recalibrate,
)
from lucency.models import classifier as classifier_module
from lucency.models.classifier import (
    Classifier,
    DivergedError,
    load_classifier,
    save_classifier,
)
from lucency.models.inference import predict
from lucency.models.networks import build
from lucency.models.training import UNIT, fit_decisions
from lucency.pipeline.film_inference import predict_disk, predict_files, predict_source
from lucency.pipeline.run import Run, open_run
from toys import FINDINGS, toy_films, toy_plan, toy_protocol

PREPARATION = Preparation(size=32)
LINE = Recalibration(
    method="platt",
    slope=np.array([0.1 + 0.2, 1e-3]),
    offset=np.array([-np.pi, 1e-17]),
    note=("", "slope held at 0.001: the best on validation films is not above it"),
    knot=np.array([[1, -1 / 3, -np.e], [1, 0.1, 1e-17]]),
)


@pytest.fixture(scope="module")
def plain() -> Classifier:
    """A network of random weights that is as yet without decisions."""
    torch.manual_seed(0)
    return Classifier(
        network=build("test_convnext", findings=2, mean_std=UNIT).eval(),
        name="test_convnext",
        architecture="test_convnext",
        findings=FINDINGS,
        preparation=PREPARATION,
        mean=UNIT[0],
        std=UNIT[1],
        protocol={},
        provenance="none",
        split="toys",
        device="cpu",
        epoch=1,
        recalibration=no_recalibration(2),
        threshold=np.full(2, 0.5),
    )


def deciding(classifier: Classifier, *, threshold: np.ndarray) -> Classifier:
    """Return the classifier with lines steep enough to spread its films over all probabilities."""
    line = Recalibration(
        method="platt", slope=np.array([40.0, 25.0]), offset=np.array([0.5, -0.25]), note=("", "")
    )
    return replace(classifier, recalibration=line, threshold=threshold)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty films on disk, more than a batch."""
    folder = tmp_path_factory.mktemp("films")
    films = np.random.default_rng(0).integers(0, 256, (40, 50, 60), dtype=np.uint8)
    made = [folder / f"{number:02d}.png" for number in range(len(films))]
    for file, film in zip(made, films, strict=True):
        cv2.imwrite(str(file), cv2.GaussianBlur(film, (0, 0), 1 + film[0, 0] / 32))
    return made


def logits(classifier: Classifier, files: list[Path]) -> np.ndarray:
    """Return the logits that the network itself gives films, all at once."""
    prepared = [prepare_film(read_grey(file), preparation=PREPARATION) for file in files]
    with torch.inference_mode():
        return classifier.network(torch.from_numpy(np.stack(prepared))).numpy().astype(np.float64)


# --- kept


def test_decisions_are_loaded_as_they_were_saved_to_the_last_digit(
    plain: Classifier, tmp_path: Path
):
    threshold = np.array([1 / 3, np.nextafter(0.5, 1)])
    save_classifier(replace(plain, recalibration=LINE, threshold=threshold), tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.recalibration.slope.tolist() == LINE.slope.tolist()
    assert loaded.recalibration.offset.tolist() == LINE.offset.tolist()
    assert loaded.recalibration.knot.tolist() == LINE.knot.tolist()
    assert (loaded.recalibration.method, loaded.recalibration.note) == (LINE.method, LINE.note)
    assert loaded.threshold.tolist() == threshold.tolist()
    assert loaded.threshold.dtype == np.float64


def test_decisions_that_do_not_fit_each_other_are_refused(plain: Classifier, tmp_path: Path):
    save_classifier(plain, tmp_path)
    about = read_json(tmp_path / "classifier.json")
    about["recalibration"]["slope"] = [1.0]
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="slope: found 1, expected one for each of 2 find"):
        load_classifier(tmp_path)
    for changed, message in (
        ({"threshold": [0.1]}, "threshold: found 1, expected one for each of 2 findings"),
        ({"threshold": [0.1, 0.2, 0.3]}, "threshold: found 3"),
        ({"mean": [0.5, 0.5]}, "mean: "),
        ({"size": -7}, "size: "),
    ):
        about["recalibration"]["slope"] = [1.0, 1.0]
        (tmp_path / "classifier.json").write_text(json.dumps({**about, **changed}))
        with pytest.raises(ValueError, match=rf"classifier\.json cannot be read \({message}"):
            load_classifier(tmp_path)
    about["recalibration"] |= {"slope": [1.0, 1.0], "knot": [[0, 2, 1], [0, 1, 2]]}
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="curves must rise from knot to knot"):
        load_classifier(tmp_path)


def test_findings_in_another_order_than_the_protocol_s_are_refused(
    plain: Classifier, tmp_path: Path
):
    findings = [*plain.findings]
    save_classifier(replace(plain, protocol={"findings": findings}), tmp_path)
    about = read_json(tmp_path / "classifier.json")
    about["findings"] = findings[::-1]
    (tmp_path / "classifier.json").write_text(json.dumps(about))  # without its checksum
    with pytest.raises(ValueError, match=r"classifier\.json cannot be read .*of its protocol are"):
        load_classifier(tmp_path)


def test_weights_that_are_no_numbers_are_not_saved_and_their_training_diverged(
    plain: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = copy.deepcopy(plain.network)
    next(network.parameters()).data.fill_(np.nan)
    diverged = replace(plain, network=network)
    with pytest.raises(
        DivergedError, match=r"holds NaN or infinity: lower training\.learning_rate"
    ):
        save_classifier(diverged, tmp_path)
    assert [*tmp_path.iterdir()] == []
    with monkeypatch.context() as unchecked:
        unchecked.setattr(classifier_module, "_no_numbers", lambda _: "")
        save_classifier(diverged, tmp_path)
    with pytest.raises(ValueError, match="NaN or infinity: its training diverged: lower training"):
        load_classifier(tmp_path)


def test_a_classifier_of_before_there_were_curves_is_a_line(plain: Classifier, tmp_path: Path):
    save_classifier(replace(plain, recalibration=LINE), tmp_path)
    about = read_json(tmp_path / "classifier.json")
    del about["recalibration"]["knot"]
    (tmp_path / "classifier.json").write_text(json.dumps(about))
    loaded = load_classifier(tmp_path).recalibration
    assert loaded.knot.shape == (0, 3)
    assert loaded.slope.tolist() == LINE.slope.tolist()


# --- applied


def test_films_on_disk_get_recalibrated_probabilities(plain: Classifier, files: list[Path]):
    made = deciding(plain, threshold=np.full(2, 0.5))
    table, rejected = predict_files(made, files=files)
    predicted, logit = table[list(FINDINGS)].to_numpy(), logits(made, files)
    slope, offset = made.recalibration.slope, made.recalibration.offset
    np.testing.assert_allclose(predicted, expit(slope * logit + offset), atol=1e-5)
    assert np.abs(predicted - expit(logit)).max() > 0.05  # the line is seen to work
    assert table["film"].tolist() == [str(file) for file in files]
    assert not len(rejected)


def test_called_are_the_findings_that_reach_their_threshold(plain: Classifier, files: list[Path]):
    predicted = predict_files(deciding(plain, threshold=np.full(2, 0.5)), files=files)[0]
    probability = predicted[list(FINDINGS)].to_numpy()
    middle = np.median(probability, axis=0)
    table, _ = predict_files(deciding(plain, threshold=middle), files=files)
    for called, row in zip(table["called"], probability, strict=True):
        reached = {FINDINGS[k] for k in range(2) if row[k] >= middle[k]}
        assert called == "|".join(name for name in FINDINGS if name in reached)
    assert {"", "Left", "Right", "Left|Right"} == set(table["called"])


@pytest.mark.parametrize(("step", "called"), [(-1, "Left"), (0, "Left"), (1, "")])
def test_at_the_threshold_is_called_and_the_next_number_above_it_is_not(
    plain: Classifier, files: list[Path], step: int, called: str
):
    never = np.array([2.0, 2.0])
    exact = predict_files(deciding(plain, threshold=never), files=files[:1])[0]["Left"].iloc[0]
    threshold = np.array([np.nextafter(exact, 9 * step) if step else exact, 2.0])
    table, _ = predict_files(deciding(plain, threshold=threshold), files=files[:1])
    assert table["called"].tolist() == [called]


def test_predictions_of_the_cache_carry_the_line_of_the_classifier(plain: Classifier):
    films = toy_films(20)
    made = deciding(plain, threshold=np.full(2, 0.5))
    found = predict(made, prepared=films, plan=toy_plan(films))
    line = made.recalibration
    expected = expit(found.logit.astype(np.float64) * line.slope + line.offset)
    np.testing.assert_allclose(found.probability, expected, atol=1e-12)
    before = predict(plain, prepared=films, plan=toy_plan(films))
    np.testing.assert_array_equal(before.logit, found.logit)
    assert np.abs(before.probability - found.probability).max() > 0.05


def test_films_on_disk_and_of_the_cache_get_the_curve(plain: Classifier, files: list[Path]):
    raw = logits(plain, files)
    truth = (np.arange(len(files)) % 3 > 0).astype(np.float32)[:, None]
    label = np.hstack([truth, truth])[np.argsort(np.argsort(raw[:, 0]))]
    curve = recalibrate(label, raw.astype(np.float32), method="isotonic")
    made = replace(plain, recalibration=curve)
    predicted = predict_files(made, files=files)[0][list(FINDINGS)].to_numpy()
    np.testing.assert_allclose(predicted, expit(curve.apply(raw)), atol=1e-3)
    assert len(curve.knot) > 2
    films = toy_films(20)
    found = predict(made, prepared=films, plan=toy_plan(films))
    assert np.array_equal(found.probability, expit(curve.apply(found.logit)))


# --- fitted


def validation(prepared: Prepared) -> Plan:
    """Return half of the films as validation films."""
    films = np.arange(0, len(prepared.manifest), 2)
    plan = originals(prepared.manifest.label).take(films)
    return replace(plan, part=np.full(len(films), "val"))


Fit = Callable[..., tuple[Classifier, np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def fit(plain: Classifier) -> Fit:
    """A function of evaluation choices: classifier, label, probability of validation films."""
    films = toy_films(160)

    def fitted(**choices: str | float) -> tuple[Classifier, np.ndarray, np.ndarray]:
        evaluation, seen = EvaluationChoices(**choices), validation(films)
        made = fit_decisions(plain, prepared=films, plan=seen, choices=evaluation)
        return made, seen.label, predict(made, prepared=films, plan=seen).probability

    return fitted


def test_the_mean_probability_is_the_share_of_positives_once_recalibrated(fit: Fit):
    """Least log-loss with a free offset makes the mean probability that of the smoothed targets."""
    _, label, probability = fit(recalibration="platt")
    positives, negatives = label.sum(axis=0), (1 - label).sum(axis=0)
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    target = (positives * high + negatives * low) / len(label)
    np.testing.assert_allclose(probability.mean(axis=0), target, atol=1e-6)
    _, _, raw = fit(recalibration="none")
    assert np.abs(raw.mean(axis=0) - target).max() > 1e-3


@pytest.mark.parametrize("recalibration", RECALIBRATIONS)
def test_thresholds_are_the_best_on_recalibrated_validation_films(fit: Fit, recalibration: str):
    made, label, probability = fit(recalibration=recalibration, threshold="f1")
    assert made.recalibration.method == recalibration
    for truth, predicted, threshold in zip(label.T, probability.T, made.threshold, strict=True):
        best = max(f1_score(truth, predicted >= level) for level in predicted)
        assert f1_score(truth, predicted >= threshold) == pytest.approx(best, abs=1e-12)


def test_no_recalibration_is_none_and_another_rule_is_another_threshold(fit: Fit):
    made, *_ = fit(recalibration="none", threshold="f1")
    assert made.recalibration.slope.tolist() == [1, 1]
    assert made.recalibration.offset.tolist() == [0, 0]
    other, *_ = fit(recalibration="none", threshold="youden")
    assert other.threshold.tolist() != made.threshold.tolist()


@pytest.mark.parametrize("recall", [0.5, 0.95])
def test_the_recall_asked_for_may_be_expected_of_new_films(fit: Fit, recall: float):
    made, label, probability = fit(threshold="recall", recall=recall)
    called = probability >= made.threshold
    found, positives = (label * called).sum(axis=0), label.sum(axis=0)
    least = np.minimum(positives, np.ceil(recall * (positives + 1) - 1e-6))
    assert found.tolist() == least.tolist()


@pytest.mark.parametrize("part", ["train", "test"])
def test_decisions_are_fitted_on_validation_films_only(plain: Classifier, part: str):
    films = toy_films(20)
    seen = originals(films.manifest.label)
    mixed = replace(seen, part=np.where(np.arange(20) < 19, "val", part))
    with pytest.raises(ValueError, match="expected validation films only"):
        fit_decisions(plain, prepared=films, plan=mixed, choices=EvaluationChoices())
    none = replace(seen, part=np.full(20, part))
    with pytest.raises(ValueError, match="expected validation films only"):
        fit_decisions(plain, prepared=films, plan=none, choices=EvaluationChoices())


# --- in a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An evaluated run on toys on disk, balanced so that training sees another prevalence."""
    root = tmp_path_factory.mktemp("run")
    films = toy_films(120)
    for name, film in zip(films.manifest.image, films.pixels, strict=True):
        cv2.imwrite(str(root / name), film)
    table = pd.DataFrame(films.manifest.label, columns=list(FINDINGS))
    about = {"image": films.manifest.image, "patient": films.manifest.patient}
    table.assign(**about).to_csv(root / "toys.csv", index=False)
    place = Source(source="csv", root=str(root), labels="toys.csv")
    protocol = toy_protocol(loss="w-cel").model_copy(update={"data": place})
    job = open_run(protocol, out=root.parent / f"{root.name}-out", workers=1)
    do_stage(job, "evaluate")
    return job


def test_a_run_s_film_from_disk_gets_the_run_s_recalibrated_probability(run: Run):
    folder = run.out / "predictions" / "test_convnext"
    found = load_predictions(folder / "predictions.npz")
    files = [Path(run.protocol.data.root) / name for name in found.image]
    name, table = predict_disk(run.out, files, name="")
    assert name == "test_convnext"
    predicted = table[list(FINDINGS)].to_numpy(dtype=np.float64)
    np.testing.assert_allclose(predicted, found.probability, atol=1e-5)
    assert np.abs(predicted - found.uncalibrated().probability).max() > 1e-3
    classifier = load_classifier(run.out / "networks" / "test_convnext")
    np.testing.assert_array_equal(found.slope, classifier.recalibration.slope)
    clear = np.abs(found.probability - classifier.threshold).min(axis=1) > 1e-5
    called = ["|".join(np.array(FINDINGS)[row]) for row in found.probability > classifier.threshold]
    assert clear.sum() > len(called) / 2
    assert table["called"][clear].tolist() == np.array(called)[clear].tolist()


def test_films_of_a_source_go_by_its_names_and_patients(run: Run, tmp_path: Path):
    """CheXpert's labels name films otherwise than they are called on disk."""
    root = write_chexpert(tmp_path / "chexpert", films=12)
    files = sorted(root.glob("*/patient*/study*/*.jpg"))
    files[3].write_bytes(files[3].read_bytes()[:40])
    place = Source(
        source="chexpert", root=str(root), align={"Edema": "Left", "Cardiomegaly": "Right"}
    )
    name, table = predict_source(run.out, place, name="")
    assert name == "test_convnext"
    assert sorted(table["film"]) == sorted(
        file.relative_to(root).as_posix().split("/", 1)[1] for file in files
    )
    assert (table["patient"] == table["film"].str.split("/").str[0]).all()
    assert table.loc[table["reason"] != "", "film"].tolist() == [
        files[3].relative_to(root).as_posix().split("/", 1)[1]
    ]
    alone = predict_disk(run.out, files, name="")[1]
    alone["film"] = [
        Path(file).relative_to(root).as_posix().split("/", 1)[1] for file in alone["film"]
    ]
    both = table.merge(alone, on="film", suffixes=("", "_alone"), validate="1:1")
    for finding in FINDINGS:
        np.testing.assert_allclose(both[finding], both[f"{finding}_alone"], atol=1e-6)
    other = place.model_copy(update={"root": str(root / "train")})
    with pytest.raises(ValueError, match="no label file of CheXpert in"):
        predict_source(run.out, other, name="")


def test_the_tables_of_a_run_decide_as_its_classifier_does(run: Run):
    table = pd.read_csv(run.out / "evaluation" / "thresholds.csv")
    classifier = load_classifier(run.out / "networks" / "test_convnext")
    assert table["finding"].tolist() == list(FINDINGS)
    np.testing.assert_allclose(table["threshold"], classifier.threshold, atol=1e-9)
