"""Ensembles: planted weights are found, test labels are never seen, order and scale are kept."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.metrics import log_loss, roc_auc_score

from lucency.core.predictions import Predictions
from lucency.ensemble import ensembles
from lucency.ensemble.ensembles import (
    ENSEMBLES,
    Blend,
    blended,
    diversity,
    fit_blend,
    stack,
)
from lucency.evaluation.metrics import macro_auc

FINDINGS = ("Mass", "Hernia", "Edema")
FILMS = 450


@pytest.fixture
def few_generations(monkeypatch):
    """Evolution that stops before its end, where its end is not what is tested."""
    monkeypatch.setattr(ensembles, "GENERATIONS", 10)


def _several(*noise: float, part: str = "val", seed: int = 0) -> list[Predictions]:
    """Networks that see the same signal through noise of their own."""
    generator = np.random.default_rng(seed)
    label = (generator.random((FILMS, 3)) < (0.4, 0.2, 0.1)).astype(np.float32)
    signal = 2.0 * label - 1.5
    return [
        Predictions(
            network=f"net{number}",
            split="0123",
            findings=FINDINGS,
            image=np.array([f"{part}{film}.png" for film in range(FILMS)]),
            patient=np.arange(FILMS) // 3 + 10_000 * seed,
            part=np.full(FILMS, part),
            label=label,
            logit=signal + width * generator.normal(size=label.shape),
            feature=np.empty((FILMS, 0), dtype=np.float32),
        )
        for number, width in enumerate(noise)
    ]


def _score(found: Predictions) -> float:
    return macro_auc(found.label, found.logit)


def _blended(several: list[Predictions], blend: Blend) -> Predictions:
    return blended(several, blend)


@pytest.mark.usefixtures("few_generations")
@pytest.mark.parametrize("method", ENSEMBLES)
def test_every_method_gives_weights_and_helps_noisy_networks(method):
    val, test = _several(1.0, 1.2, 1.5), _several(1.0, 1.2, 1.5, part="test", seed=1)
    blend = fit_blend(val, method=method, seed=0)
    assert blend.weight.shape == (3, 3)
    np.testing.assert_allclose(blend.weight.sum(axis=0), 1)
    found = blended(test, blend)
    assert (found.network, found.part[0], found.feature.shape) == (method, "test", (FILMS, 0))
    assert _score(found) > max(_score(one) for one in test)


@pytest.mark.usefixtures("few_generations")
@pytest.mark.parametrize("method", ["evolved", "convex", "convex-by-finding", "greedy"])
def test_planted_weights_are_recovered_in_what_they_are_worth(method):
    """A useless and a harmful network beside two good ones: their weights go towards 0."""
    val = _several(0.8, 1.0, 60.0, 80.0)
    best = Blend(
        method="planted",
        space="probability",
        members=tuple(one.network for one in val),
        weight=np.repeat([[0.6], [0.4], [0.0], [0.0]], 3, axis=1),
    )
    found = fit_blend(val, method=method, seed=0)
    assert _score(_blended(val, found)) == pytest.approx(_score(_blended(val, best)), abs=0.02)
    assert found.weight[2:].sum(axis=0).max() < 0.1


@pytest.mark.parametrize("noise", [(0.8, 1.0, 3.0), (1.5, 0.6, 2.5)])
def test_no_weights_that_are_drawn_at_random_do_better_than_those_evolved(noise):
    val = _several(*noise)
    label, value = val[0].label, np.stack([one.probability for one in val])

    def worth(weight: np.ndarray) -> float:
        return macro_auc(label, np.einsum("mnk,m->nk", value, weight))

    found = worth(fit_blend(val, method="evolved", seed=0).weight[:, 0])
    drawn = np.random.default_rng(1).dirichlet(np.ones(len(val)), 500)
    assert found >= max(worth(weight) for weight in (*drawn, *np.eye(len(val))))


def test_convex_weights_are_a_minimum_of_the_log_loss():
    val = _several(0.8, 1.4, 2.0)
    blend = fit_blend(val, method="convex", seed=0)
    probability, truth = np.stack([one.probability for one in val]), val[0].label.ravel()

    def loss(weight: np.ndarray) -> float:
        return log_loss(truth, np.einsum("mnk,m->nk", probability, weight).ravel())

    least, generator = loss(blend.weight[:, 0]), np.random.default_rng(1)
    assert least <= min(loss(weight) for weight in generator.dirichlet(np.ones(3), 300)) + 1e-9
    assert least <= min(loss(weight) for weight in np.eye(3)) + 1e-9


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_greedy_is_never_below_the_best_single_network(seed):
    width = np.random.default_rng(seed).uniform(0.5, 5, size=4)
    val = _several(*width.tolist(), seed=seed)
    blend = fit_blend(val, method="greedy", seed=0)
    assert _score(_blended(val, blend)) >= max(_score(one) for one in val) - 1e-12


def test_an_ensemble_is_not_fitted_to_test_films():
    with pytest.raises(ValueError, match="fitted to val films alone, found test films"):
        fit_blend(_several(1, 2, part="test"), method="greedy", seed=0)


def test_the_mean_of_ranks_is_that_of_validation_ranks():
    val = _several(1.0, 2.0)
    found = _blended(val, fit_blend(val, method="mean-rank", seed=0))
    ranks = [(rankdata(one.logit[:, 0]) - 0.5) / FILMS for one in val]
    np.testing.assert_allclose(expit(found.logit[:, 0]), np.mean(ranks, axis=0), atol=1e-8)


@pytest.mark.usefixtures("few_generations")
def test_the_same_seed_gives_the_same_weights():
    val = _several(1.0, 1.4)
    weights = [fit_blend(val, method="evolved", seed=seed).weight for seed in (3, 3, 4)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_a_finding_without_positives_gets_equal_weights():
    val = _several(1.0, 2.0)
    label = val[0].label.copy()
    label[:, 1] = 0
    val = [replace(one, label=label) for one in val]
    assert fit_blend(val, method="convex-by-finding", seed=0).weight[:, 1].tolist() == [0.5, 0.5]
    assert np.isfinite(stack(val, _several(1.0, 2.0, part="test", seed=1))[1].logit).all()


def test_stacking_learns_whom_to_trust_and_is_out_of_fold_on_validation():
    val, test = _several(0.8, 40.0), _several(0.8, 40.0, part="test", seed=1)
    beyond, found, _ = stack(val, test)
    areas = [roc_auc_score(one.label, one.logit) for one in (found, test[0])]
    assert areas[0] == pytest.approx(areas[1], abs=0.01)
    shuffled = np.random.default_rng(0).permutation(val[0].label)
    noise = [replace(one, label=shuffled) for one in _several(1.0, 1.0)]
    assert _score(stack(noise, test)[0]) < 0.55
    assert (beyond.part == "val").all()


def test_strangers_and_loners_are_refused():
    val = _several(1.0, 2.0)
    with pytest.raises(ValueError, match=r"an ensemble of 1 network\(s\)"):
        fit_blend(val[:1], method="greedy", seed=0)
    with pytest.raises(ValueError, match="'mean' is unknown; expected one of mean-probability"):
        fit_blend(val, method="mean", seed=0)
    blend = fit_blend(val, method="mean-logit", seed=0)
    with pytest.raises(ValueError, match="was fitted to net0, net1; found net1, net0"):
        blended(val[::-1], blend)


def test_diversity_is_none_between_twins_and_all_between_opposites():
    one = _several(1.0)[0]
    other = replace(one, network="other", logit=-one.logit)
    half = np.full((2, 3), 0.5)
    twins = diversity([one, replace(one, network="twin")], threshold=half).iloc[0]
    assert (twins["disagreement"], twins["error"]) == (0, pytest.approx(1))
    apart = diversity([one, other], threshold=half).iloc[0]
    assert apart["disagreement"] == 1
    assert apart["error"] < 0.9
