"""Prediction does not depend on how films come: batch, order, cache or disk."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lucency.core.manifest import Preparation
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film
from lucency.evaluation.calibration import no_recalibration
from lucency.models import inference as predict_module
from lucency.models.classifier import Classifier
from lucency.models.film_loader import Films
from lucency.models.inference import forward, predict, predict_on_engine
from lucency.models.networks import build
from lucency.models.training import UNIT
from lucency.pipeline.film_inference import predict_files
from toys import FINDINGS, learn, toy_films, toy_plan, toy_protocol


def classifier(preparation: Preparation) -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        network=build("test_efficientnet", findings=2, mean_std=UNIT).eval(),
        name="test_efficientnet",
        architecture="test_efficientnet",
        findings=FINDINGS,
        preparation=preparation,
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


def test_neither_batch_nor_order_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    films = toy_films(20)
    plan, network = toy_plan(films), classifier(films.preparation).network
    whole, feature = forward(network, films=Films(prepared=films, plan=plan, copies=0))
    order = np.random.default_rng(0).permutation(20)
    monkeypatch.setattr(predict_module, "BATCH", 3)
    shuffled = Films(prepared=films, plan=plan.take(order), copies=0)
    other, features = forward(network, films=shuffled)
    np.testing.assert_allclose(other, whole[order], atol=1e-5)
    np.testing.assert_allclose(features, feature[order], atol=1e-5)
    assert whole.std() > 0


@pytest.mark.parametrize("seed", [0, 1])  # the second is trained in the folder of the first
def test_an_engine_predicts_what_this_process_does(seed: int, tmp_path_factory) -> None:
    folder = tmp_path_factory.getbasetemp() / "trained-anew"
    shutil.rmtree(folder, ignore_errors=True)
    classifier = learn(folder, toy_protocol(epochs=1, seed=seed))
    about = {"prepared": toy_films(), "plan": toy_plan(toy_films())}
    seen = []
    sent = predict_on_engine(
        folder, progress=lambda at, total, _: seen.append((at, total)), **about
    )
    here = predict(classifier, **about)
    np.testing.assert_array_equal(sent.logit, here.logit)
    np.testing.assert_array_equal(sent.feature, here.feature)
    np.testing.assert_array_equal(sent.image, here.image)
    assert seen[-1] == (len(here), len(here))


def test_predictions_carry_names_labels_and_parts() -> None:
    films = toy_films(20)
    plan = toy_plan(films)
    seen = plan.take(plan.part != "train")
    found = predict(classifier(films.preparation), prepared=films, plan=seen)
    assert found.image.tolist() == films.manifest.image[seen.row].tolist()
    assert np.array_equal(found.label, films.manifest.label[seen.row])
    assert set(found.part) == {"val", "test"}
    assert found.feature.shape == (len(seen), 256)


def test_findings_in_another_order_are_refused() -> None:
    films = toy_films(20)
    network = classifier(films.preparation)
    swapped = Classifier(**{**network.__dict__, "findings": FINDINGS[::-1]})
    with pytest.raises(ValueError, match="same order"):
        predict(swapped, prepared=films, plan=toy_plan(films))


def test_a_film_on_disk_gets_what_its_cache_row_gets(tmp_path: Path) -> None:
    """No skew between training and serving: same bytes, same probability."""
    preparation = Preparation(size=48, brightness=5)
    grey = np.random.default_rng(0).integers(0, 256, (200, 160), dtype=np.uint8)
    file = tmp_path / "film.png"
    cv2.imwrite(str(file), grey)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a film")
    made = classifier(preparation)
    table, rejected = predict_files(made, files=[file, broken, file])
    cached = torch.from_numpy(prepare_film(read_grey(file), preparation=preparation))[None]
    with torch.inference_mode():
        expected = torch.sigmoid(made.network(cached))[0].numpy()
    for row in table[list(FINDINGS)].to_numpy():
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert table["film"].tolist() == [str(file)]
    assert rejected["film"].tolist() == [str(broken)]
    assert rejected["reason"].iloc[0]
