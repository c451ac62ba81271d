"""One look at a network: what it allows, what it forgets, and nothing where there is no film."""

import numpy as np
import torch

from lucency.choices import Explaining
from lucency.learn.look import look
from lucency.learn.scrutiny import TRIALS, forgetful, refusals, scrutinise
from test_predict import classifier as toy_classifier
from toys import FINDINGS, toy_films, toy_plan

CHOICES = Explaining(methods=("grad-cam", "attention-rollout"), films=3)


def common(films):
    return {"prepared": films, "findings": FINDINGS, "choices": CHOICES}


def test_methods_that_a_network_does_not_allow_are_named_and_the_others_go_on():
    films = toy_films(16)
    plan = toy_plan(films).take(np.arange(6))
    found = look(
        toy_classifier(films.preparation),
        prepared=films,
        plan=plan,
        findings=FINDINGS,
        choices=CHOICES,
    )
    assert list(found.refused) == ["attention-rollout"]
    assert [maps.method for maps in found.maps] == ["grad-cam"]
    assert found.maps[0].grid.shape[:2] == (6, 2)
    assert not np.array_equal(found.maps[0].grid, found.redrawn[0].grid)
    assert set(found.similarities["method"]) == {"grad-cam"}
    assert len(found.tried) == 3
    assert found.tried[list(TRIALS)[:4]].to_numpy().min() >= 0


def test_nothing_is_seen_where_no_film_is_to_be_explained():
    films = toy_films(16)
    nothing = toy_plan(films).take(np.arange(0))
    found = look(
        toy_classifier(films.preparation),
        prepared=films,
        plan=nothing,
        findings=FINDINGS,
        choices=CHOICES,
    )
    assert (found.maps, found.refused, len(found.tried)) == ((), {}, 0)


def test_the_network_is_as_it_was_and_draws_are_seeded():
    films = toy_films(16)
    plan, classifier = toy_plan(films).take(np.arange(8)), toy_classifier(films.preparation)
    before = {name: one.clone() for name, one in classifier.network.state_dict().items()}
    same = {"prepared": films, "plan": plan, "methods": ["cam"], "films": 4, "seed": 1}
    first, again = (scrutinise(classifier, **same) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.equals(other)
    blind = forgetful(classifier, seed=0)
    after = classifier.network.state_dict()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    drawn = blind.network.state_dict()
    changed = [name for name, one in drawn.items() if not torch.equal(one, after[name])]
    assert changed == ["body.classifier.weight"]  # the bias was 0, and stays so
    assert refusals(classifier, prepared=films, plan=plan, methods=["cam", "occlusion"]) == {}
