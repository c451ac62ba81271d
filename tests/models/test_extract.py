"""Features on disk in one pass, resumed, and more views of a film: equal to `predict`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lucency.config.sections import Network
from lucency.core.manifest import Prepared
from lucency.core.plan import Plan
from lucency.models import features as extracting
from lucency.models import inference as predicting
from lucency.models.augmentation import augment, seed_of
from lucency.models.classifier import Classifier, load_classifier
from lucency.models.features import DONE, extract
from lucency.models.inference import predict, predict_views
from lucency.models.training import train
from toys import KilledError, dies_beyond, silent, toy_films, toy_plan, toy_protocol

FILMS = 72  # blocks of 32 and a rest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    films = toy_films(FILMS)
    return train(
        films,
        plan=toy_plan(films),
        protocol=toy_protocol(epochs=1),
        choice=Network(name="test_convnext"),
        upstream={"split": "0123"},
        out=tmp_path_factory.mktemp("extract") / "net",
        progress=lambda *_: None,
    )


@pytest.fixture
def films() -> Prepared:
    return toy_films(FILMS)


@pytest.fixture
def plan(films: Prepared) -> Plan:
    return toy_plan(films)


@pytest.fixture
def classifier(trained: Path) -> Classifier:
    return load_classifier(trained)


def test_what_is_extracted_is_what_predict_gives(classifier, films, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(extracting, "BLOCK", 32)
    extract(classifier, prepared=films, plan=plan, folder=tmp_path, progress=silent)
    logit, feature = (np.load(tmp_path / name) for name in ("logit.npy", "feature.npy"))
    predicted = predict(classifier, prepared=films, plan=plan)
    np.testing.assert_allclose(logit, predicted.logit, atol=1e-5)
    np.testing.assert_allclose(feature, predicted.feature, atol=1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["feature.npy", "logit.npy"]


def test_a_killed_pass_goes_on_where_it_was(classifier, films, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(extracting, "BLOCK", 32)
    seen = seen_by(classifier, monkeypatch)
    given = {"prepared": films, "plan": plan}
    killed, whole = folders(tmp_path, "killed", "whole")
    with pytest.raises(KilledError):
        extract(classifier, **given, folder=killed, progress=dies_beyond(32))
    assert (killed / DONE).read_text().endswith(" 32")
    seen.clear()
    extract(classifier, **given, folder=killed, progress=silent)
    assert sum(seen) == FILMS - 32
    extract(classifier, **given, folder=whole, progress=silent)
    for name in ("logit.npy", "feature.npy"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_a_pass_killed_before_its_last_word_computes_nothing_again(
    classifier, films, plan, tmp_path, monkeypatch
):
    monkeypatch.setattr(extracting, "BLOCK", 32)
    given = {"prepared": films, "plan": plan, "folder": tmp_path, "progress": silent}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies_at_once)
        with pytest.raises(KilledError):
            extract(classifier, **given)
    seen = seen_by(classifier, monkeypatch)
    extract(classifier, **given)
    assert (np.load(tmp_path / "logit.npy").shape, seen) == ((FILMS, 2), [])
    assert not (tmp_path / DONE).exists()


@pytest.mark.parametrize("other", ["order", "fewer", "weights", "preparation"])
def test_what_another_pass_has_left_is_not_taken_over(
    classifier, films, plan, tmp_path, monkeypatch, other
):
    monkeypatch.setattr(extracting, "BLOCK", 32)
    with pytest.raises(KilledError):
        extract(classifier, prepared=films, plan=plan, folder=tmp_path, progress=dies_beyond(64))
    if other == "order":
        plan = plan.take(np.arange(FILMS)[::-1])
    elif other == "fewer":
        plan = plan.take(np.arange(40, FILMS))
    elif other == "weights":
        with torch.no_grad():
            list(classifier.network.body.parameters())[-1].add_(1.0)  # the head's bias
    else:
        brighter = films.preparation.model_copy(update={"brightness": 9})
        films = replace(films, preparation=brighter, pixels=films.pixels // 2)
    extract(classifier, prepared=films, plan=plan, folder=tmp_path, progress=silent)
    logit, feature = (np.load(tmp_path / name) for name in ("logit.npy", "feature.npy"))
    predicted = predict(classifier, prepared=films, plan=plan)
    np.testing.assert_allclose(logit, predicted.logit, atol=1e-5)
    np.testing.assert_allclose(feature, predicted.feature, atol=1e-5)


def test_one_feed_serves_all_blocks(classifier, films, plan, tmp_path, monkeypatch):
    """Beside an accelerator every feed starts worker processes."""
    monkeypatch.setattr(extracting, "BLOCK", 10)
    begun, feed = [], predicting.feed
    monkeypatch.setattr(
        predicting, "feed", lambda *given, **named: begun.append(1) or feed(*given, **named)
    )
    extract(classifier, prepared=films, plan=plan, folder=tmp_path, progress=silent)
    assert len(begun) == 1


def test_the_network_s_mode_is_restored_when_a_pass_is_killed(classifier, films, plan, tmp_path):
    classifier.network.train()
    with pytest.raises(KilledError):
        extract(classifier, prepared=films, plan=plan, folder=tmp_path, progress=dies_beyond(0))
    assert classifier.network.training
    assert not torch.is_inference_mode_enabled()


def test_other_findings_are_refused(classifier, films, plan, tmp_path):
    swapped = replace(classifier, findings=classifier.findings[::-1])
    given = {"prepared": films, "plan": plan, "progress": silent}
    with pytest.raises(ValueError, match="same order"):
        extract(swapped, **given, folder=tmp_path)
    with pytest.raises(ValueError, match="same order"):
        predict_views(swapped, **given, recipe="gentle", views=1, seed=0)


def test_views_that_differ_in_nothing_change_nothing(classifier, films, plan):
    predicted = predict_views(
        classifier, prepared=films, plan=plan, recipe="none", views=2, seed=0, progress=silent
    )
    plain = predict(classifier, prepared=films, plan=plan)
    np.testing.assert_allclose(predicted.logit, plain.logit, atol=1e-5)
    assert predicted.feature.shape == (FILMS, 0)


def test_views_are_a_mean_that_one_can_take_by_hand(classifier, films, plan):
    """A view's picture is drawn here as `augment` draws it, and given to the network directly."""
    predicted = predict_views(
        classifier, prepared=films, plan=plan, recipe="gentle", views=3, seed=5, progress=silent
    )
    for film in (0, 17, 71):
        pictures = [films.pixels[film]]
        for view in range(3):
            seed = seed_of(5, view, f"{film:03d}.png", 0)
            pictures.append(augment(films.pixels[film], recipe="gentle", seed=seed))
        with torch.inference_mode():
            logit = classifier.network(torch.from_numpy(np.stack(pictures)))
        np.testing.assert_allclose(predicted.logit[film], logit.numpy().mean(axis=0), atol=1e-5)


def test_a_film_s_views_are_its_own_whatever_stands_beside_it(classifier, films, plan, monkeypatch):
    given = {"prepared": films, "recipe": "gentle", "views": 2, "progress": silent}
    predicted = predict_views(classifier, plan=plan, seed=3, **given)
    order = np.random.default_rng(0).permutation(FILMS)[:40]
    monkeypatch.setattr(predicting, "BATCH", 7)
    some = predict_views(classifier, plan=plan.take(order), seed=3, **given)
    np.testing.assert_allclose(some.logit, predicted.logit[order], atol=1e-5)
    other = predict_views(classifier, plan=plan, seed=4, **given)
    plain = predict(classifier, prepared=films, plan=plan)
    assert np.abs(other.logit - predicted.logit).max() > 1e-3
    assert np.abs(plain.logit - predicted.logit).max() > 1e-3


def seen_by(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which every batch that the network sees adds its films."""
    seen: list[int] = []
    embed = classifier.network.embed

    def counted(films: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(films))
        return embed(films)

    monkeypatch.setattr(classifier.network, "embed", counted)
    return seen


def folders(home: Path, *names: str) -> list[Path]:
    for name in names:
        (home / name).mkdir()
    return [home / name for name in names]


def dies_at_once(*_: object, **__: object) -> None:
    raise KilledError
