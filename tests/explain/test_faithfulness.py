"""Heat maps of a network and their tests: methods refused, randomised weights, flat maps."""

import numpy as np
import pytest
import torch
from test_predict import classifier as toy_classifier

from lucency.config.sections import ExplanationChoices
from lucency.explain.heatmaps import enlarge
from lucency.explain.methods import attribution
from lucency.explain.methods import faithfulness_tests as faithfulness
from lucency.explain.methods.faithfulness_tests import (
    TRIALS,
    measure_faithfulness,
    network_heatmaps,
    randomised,
    randomised_network,
    refusals,
)
from lucency.explain.methods.registry import HEATMAPS, centres_of
from toys import FINDINGS, toy_films, toy_plan

WHICH = ("plan", "boxed", "tried")
CHOICES = ExplanationChoices(methods=("grad-cam", "attention-rollout"), films=3)


def common(films):
    return {"prepared": films, "findings": FINDINGS, "choices": CHOICES}


def test_methods_that_a_network_does_not_allow_are_named_and_the_others_go_on():
    films = toy_films(16, size=96)
    plan = toy_plan(films).take(np.arange(6))
    classifier, boxed = toy_classifier(films.preparation), plan.take(np.array([1, 4]))
    found = network_heatmaps(
        classifier,
        plan=plan,
        boxed=boxed,
        tried=toy_plan(films).take(np.arange(6, 16)),
        **common(films),
    )
    assert list(found.refused) == ["attention-rollout"]
    assert [maps.method for maps in found.maps] == ["grad-cam"]
    assert found.maps[0].grid.shape[:2] == (6, 2)
    assert found.randomised_maps[0].image.tolist() == found.maps[0].image[[1, 4]].tolist()
    assert not np.array_equal(found.maps[0].grid[[1, 4]], found.randomised_maps[0].grid)
    assert set(found.tests.similarities["method"]) == {"grad-cam"}
    assert len(found.tests.tried) == 3
    areas = found.tests.tried[list(TRIALS)[:4]].to_numpy()
    assert np.nanmin(areas) >= 0
    assert np.nanmax(areas) <= 1
    assert not set(found.tests.tried["image"]) & set(found.maps[0].image.tolist())
    nothing = plan.take(np.arange(0))
    unboxed = network_heatmaps(classifier, plan=plan, boxed=nothing, tried=nothing, **common(films))
    assert unboxed.randomised_maps == ()


def test_no_film_to_explain_gives_no_maps():
    films = toy_films(16)
    nothing = toy_plan(films).take(np.arange(0))
    classifier, plans = toy_classifier(films.preparation), dict.fromkeys(WHICH, nothing)
    found = network_heatmaps(classifier, **plans, **common(films))
    assert (found.maps, found.refused, len(found.tests.tried)) == ((), {}, 0)


def test_flat_maps_name_no_order_and_many_films_go_by_batches(monkeypatch):
    films = toy_films(16, size=96)
    plan, classifier = toy_plan(films), toy_classifier(films.preparation)
    about = {"prepared": films, "plan": plan, "films": 4, "seed": 1}
    right = HEATMAPS["cam"]
    whole = measure_faithfulness(classifier, **about, methods=["cam"]).tried
    monkeypatch.setattr("lucency.explain.methods.faithfulness_tests.BATCH", 1)
    split = measure_faithfulness(classifier, **about, methods=["cam"]).tried
    np.testing.assert_allclose(split[list(TRIALS)], whole[list(TRIALS)], atol=1e-5)
    assert whole.notna().all(axis=None)
    seen = []

    def flat(network, pixels, findings):
        seen.append(len(pixels))
        return right(network, pixels, findings=findings).mean((2, 3), keepdim=True).expand(
            -1, -1, 4, 4
        )  # fmt: skip

    monkeypatch.setitem(HEATMAPS, "cam", flat)
    tried = measure_faithfulness(classifier, **about, methods=["cam"]).tried
    assert max(seen) == 1
    assert tried[["deletion", "insertion"]].isna().all(axis=None)


def test_a_map_is_ranked_where_its_cells_look(monkeypatch):
    """Cells of one grid, but of elsewhere, take away other pixels; alike they share a baseline."""
    films = toy_films(16, size=96)
    plan, classifier = toy_plan(films), toy_classifier(films.preparation)
    laid, right = [], faithfulness.CURVES["deletion"]

    def remember(network, pixels, *, heatmap, findings, steps):
        laid.append(heatmap)
        return right(network, pixels, heatmap=heatmap, findings=findings, steps=steps)

    monkeypatch.setitem(faithfulness.CURVES, "deletion", remember)
    cells = torch.arange(9.0).view(1, 1, 3, 3)
    for name in ("cam", "grad-cam", "occlusion"):
        monkeypatch.setitem(HEATMAPS, name, lambda _, pixels, findings: cells)
    methods = ["cam", "grad-cam", "occlusion"]
    tried = measure_faithfulness(
        classifier, prepared=films, plan=plan, methods=methods, films=1, seed=0
    ).tried.set_index("method")
    assert len(laid) == 2 + 3  # the baselines of features and of the even grid, the methods' own
    own = {"cam": laid[1], "grad-cam": laid[2], "occlusion": laid[4]}
    pixels = torch.zeros(1, 3, 96, 96)
    for name, over in own.items():
        where = centres_of(name, classifier.network.body, pixels, cells=cells.shape[2:])
        large = enlarge(cells[0, 0].numpy(), where, frame=96)
        np.testing.assert_allclose(over[0].numpy(), large, atol=1e-5)
    assert not torch.allclose(own["cam"], own["occlusion"], atol=0.1)
    assert tried.loc["cam", "deletion_random"] == tried.loc["grad-cam", "deletion_random"]


def test_the_maps_put_to_the_test_are_those_that_are_shown():
    films = toy_films(8, size=112)
    plan, classifier = toy_plan(films), toy_classifier(films.preparation)
    seen = []

    def stable(*_, method, shift, findings):
        del shift
        seen.append(method(classifier.network.body, torch.rand(1, 3, 112, 112), findings=findings))
        return torch.ones(1, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faithfulness, "stability", stable)
        patch.setattr(attribution, "NOISY_COPIES", 2)
        measure_faithfulness(
            classifier, prepared=films, plan=plan, methods=["smooth-grad"], films=1, seed=0
        )
    assert seen[0].shape == (1, 1, 56, 56)


def test_the_network_is_as_it_was_and_draws_are_seeded():
    films = toy_films(16)
    plan, classifier = toy_plan(films).take(np.arange(8)), toy_classifier(films.preparation)
    before = {name: one.clone() for name, one in classifier.network.state_dict().items()}
    same = {"prepared": films, "plan": plan, "methods": ["cam"], "films": 4, "seed": 1}
    first, again = (measure_faithfulness(classifier, **same) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.equals(other)
    blind = randomised_network(classifier, seed=0)
    (_, head), *_ = randomised(classifier.network.body, seed=0, copies=2)
    for one, other in zip(blind.network.body.parameters(), head.parameters(), strict=True):
        assert torch.equal(one, other)
    after = classifier.network.state_dict()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    drawn = blind.network.state_dict()
    changed = [name for name, one in drawn.items() if not torch.equal(one, after[name])]
    assert changed == ["body.classifier.weight"]  # the bias was 0, and stays so
    assert refusals(classifier, prepared=films, plan=plan, methods=["cam", "occlusion"]) == {}
