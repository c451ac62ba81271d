"""Choices for few films: probes, layers, averages of weights, mixup, smoothing, augmentation."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.optim import param_groups_layer_decay
from torch import nn

from lucency.config.protocol import Protocol
from lucency.config.sections import Head, Network, Training
from lucency.evaluation.metrics import macro_auc
from lucency.models import averages, linear_probe
from lucency.models import training as train_module
from lucency.models.augmentation import augment
from lucency.models.features import embed, frozen_network
from lucency.models.film_loader import Films
from lucency.models.inference import forward
from lucency.models.layers import groups_of, layer_numbers, thaw
from lucency.models.linear_probe import fit_head, logistic_heads
from lucency.models.networks import BATCH_NORMS, FilmNetwork, build
from lucency.models.optimisation import learning_rate
from lucency.models.training import check_choice
from lucency.pipeline.run import describe_network
from toys import KilledError, dies_beyond, learn, toy_films, toy_plan, toy_protocol


def sides(**changes: object) -> tuple[Films, Films]:
    """Training and validation films of the toys."""
    films = toy_films()
    plan = toy_plan(films)
    val = Films(prepared=films, plan=plan.take(plan.part == "val"), copies=0)
    return replace(val, plan=plan.take(plan.part == "train"), **changes), val


def test_mixup_mixes_a_film_with_one_of_another_patient_and_their_labels_by_the_same_share():
    films, _ = sides(mixup=1.0, seed=3)
    alone, patient = replace(films, mixup=0.0), films.prepared.manifest.patient
    shares = []
    for entry in range(len(films)):
        target = films.targets(np.array([entry])).label[0]
        found = []
        for mate in range(len(films)):
            ours, theirs = films.plan.label[entry], films.plan.label[mate]
            own, other = (alone.picture(one).astype(float) for one in (entry, mate))
            # The share that explains the picture best, by least squares.
            away = other - own
            share = ((films.picture(entry) - own) * away).sum() / max(1.0, (away**2).sum())
            miss = np.abs(own + share * away - films.picture(entry)).max()
            if miss < 1.5 and np.abs((1 - share) * ours + share * theirs - target).max() < 0.01:
                found.append((mate, share))
        assert found, entry
        mate, share = min(found, key=lambda one: one[1] if len(found) > 1 else 0)
        shares.append(share)
        assert patient[films.plan.row[mate]] != patient[films.plan.row[entry]] or share < 0.01
    assert 0 <= min(shares) < 0.1 < max(shares) < 0.51


def test_mixup_is_a_function_of_film_and_epoch_and_needs_another_patient():
    films, _ = sides(mixup=0.5)
    same, later = replace(films), replace(films, epoch=1)
    assert all(np.array_equal(films.picture(one), same.picture(one)) for one in range(8))
    assert any(not np.array_equal(films.picture(one), later.picture(one)) for one in range(8))
    alone = replace(films, plan=films.plan.take(np.array([0, 1])))  # of one patient
    assert len(set(films.prepared.manifest.patient[alone.plan.row])) == 1
    np.testing.assert_array_equal(alone.targets(np.arange(2)).label, alone.plan.label)


def test_a_label_that_is_not_stated_stays_so_when_it_is_mixed_or_smoothed():
    films, _ = sides(mixup=1.0)
    label = films.plan.label.copy()
    label[:, 1] = np.nan
    films = replace(films, plan=replace(films.plan, label=label))
    target = films.targets(np.arange(len(films)), smoothing=0.2).label
    assert np.isnan(target[:, 1]).all()
    assert ((target[:, 0] >= 0.1 - 1e-6) & (target[:, 0] <= 0.9 + 1e-6)).all()


def test_mixed_labels_count_by_their_weights():
    """The gradient of a mixture is the mixture of the gradients, at any logit."""
    films, _ = sides(mixup=1.0, seed=3)
    weight = np.where(films.plan.label == 1, 9, 1).astype(np.float32)
    heavy = replace(films, plan=replace(films.plan, weight=weight))
    rows = np.arange(len(films))
    found, plain, label = heavy.targets(rows), films.targets(rows), films.plan.label
    both = np.isin(plain.label, (0, 1))
    for entry, finding in np.argwhere(~both)[:10]:
        other = plain.label[entry, finding]  # of a positive and a negative: the positive's share
        positive, negative = 9 * other, 1 - other
        assert found.weight[entry, finding] == pytest.approx(positive + negative, rel=1e-5)
        one = found.label[entry, finding] * found.weight[entry, finding]
        assert one == pytest.approx(positive, rel=1e-5)
    assert (found.label[both] == label[both]).mean() > 0.9
    none = replace(films, plan=replace(films.plan, weight=np.zeros_like(weight)))
    np.testing.assert_allclose(none.targets(rows).label, plain.label, atol=1e-6)
    assert (none.targets(rows).weight == 0).all()
    alone = replace(none, mixup=0.0)
    np.testing.assert_array_equal(alone.targets(rows).label, label)


def test_smoothing_draws_labels_to_a_half():
    films, _ = sides()
    target = films.targets(np.arange(len(films)), smoothing=0.1).label
    np.testing.assert_allclose(target, np.where(films.plan.label == 1, 0.95, 0.05), atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "test_vit", "test_convnext"])
def test_rates_by_layer_are_those_of_timm(name: str):
    network = build(name, findings=2)
    theirs = param_groups_layer_decay(network.body, 0.0, layer_decay=0.7)
    ours = groups_of(network, decay=0.7)
    expected = {id(p): group["lr_scale"] for group in theirs for p in group["params"]}
    found = {id(p): group["lr_scale"] for group in ours for p in group["params"]}
    assert found == pytest.approx(expected)
    assert max(found.values()) == 1
    assert len(set(found.values())) > 3


@pytest.mark.parametrize(
    ("name", "head"), [("alexnet", Head()), ("test_resnet", Head(pooling="average", dense=(8,)))]
)
def test_every_parameter_has_a_layer_and_the_head_is_the_last(name: str, head: Head):
    body = build(name, findings=2, head=head).body
    number = layer_numbers(body)
    assert number.keys() == dict(body.named_parameters()).keys()
    last = {n for n, layer in number.items() if layer == max(number.values())}
    assert {n for n, p in body.named_parameters() if p.shape[0] == 2 and "lass" in n} <= last
    assert all("features" not in one and not one.startswith("body.") for one in last)
    assert min(number.values()) == 0


def test_layers_thaw_from_the_head_and_the_others_keep_their_batch_statistics():
    network, learning = build("mobilenetv2_100", findings=2), []
    for share in (0.0, 0.5, 1.0):
        thaw(network, share, among=[*network.parameters()])
        network.train()
        learning.append({n for n, p in network.body.named_parameters() if p.requires_grad})
        for module in network.body.modules():
            if isinstance(module, BATCH_NORMS):
                assert module.training == module.weight.requires_grad
    assert learning[0] == {"classifier.weight", "classifier.bias"}
    assert learning[0] < learning[1] < learning[2]
    assert learning[2] == {n for n, _ in network.body.named_parameters()}


def test_thawing_trains_the_head_first_and_everything_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before the second epoch, whose first thaw is everything's, the body is as it began."""
    torch.manual_seed(train_module.seed_of(0, "test_resnet"))
    start, moved = dict(build("test_resnet", findings=2).body.named_parameters()), []

    def watched(network: FilmNetwork, share: float, **named: object) -> None:
        now = dict(network.body.named_parameters())
        moved.append({name for name in now if (now[name] != start[name]).any()})
        thaw(network, share, **named)

    monkeypatch.setattr(train_module, "thaw", watched)
    made = learn(tmp_path / "net", toy_protocol("test_resnet", unfreeze_epochs=1, keep="last"))
    now = dict(made.network.body.named_parameters())
    head = {name for name, parameter in now.items() if parameter.shape[0] == 2}
    assert moved == [set(), head]
    assert all((now[name] != start[name]).any() for name in now if "weight" in name)


class Recorder:
    """The weights of a training after every call of an average's update, as numbers of float64."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[dict[str, np.ndarray]] = []
        update = averages.AveragedModel.update_parameters

        def record(average: averages.AveragedModel, network: nn.Module) -> None:
            body = {n: p.detach().double().numpy() for n, p in network.body.named_parameters()}
            self.seen.append(body)
            update(average, network)

        monkeypatch.setattr(averages.AveragedModel, "update_parameters", record)


def test_the_exponential_average_is_validated_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recorder = Recorder(monkeypatch)
    made = learn(tmp_path / "net", toy_protocol("test_resnet", ema=0.7, keep="last"))
    assert len(recorder.seen) == 2 * 5  # a step each: 36 films in batches of 8, two epochs
    expected = recorder.seen[0]
    for later in recorder.seen[1:]:
        expected = {n: 0.7 * expected[n] + 0.3 * later[n] for n in expected}
    for name, parameter in made.network.body.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], atol=1e-5)
    score, _ = forward(made.network, films=sides()[1])
    kept = pd.read_csv(tmp_path / "net" / "history.csv")["val_auc"].iloc[-1]
    assert kept == pytest.approx(macro_auc(sides()[1].plan.label, score))


def test_the_average_of_the_last_epochs_has_statistics_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recorder = Recorder(monkeypatch)
    protocol = toy_protocol("test_resnet", epochs=4, swa_epochs=2, swa_rate=0.5, keep="last")
    made = learn(tmp_path / "net", protocol)
    assert len(recorder.seen) == 2
    for name, parameter in made.network.body.named_parameters():
        mean = (recorder.seen[0][name] + recorder.seen[1][name]) / 2
        np.testing.assert_allclose(parameter.detach().numpy(), mean, atol=1e-5)
    stem = next(one for one in made.network.body.modules() if isinstance(one, nn.Conv2d))
    norm = next(one for one in made.network.body.modules() if isinstance(one, BATCH_NORMS))
    films = torch.from_numpy(np.stack([sides()[0].picture(one) for one in range(36)]))
    maps = stem(made.network.pictures(films))
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), atol=0.02, rtol=0.02)


def test_the_average_leaves_a_table_of_colours_as_it_is():
    network = build("test_resnet", findings=2, colour="jet")
    average = averages.average_for(network, Training(ema=0.9))
    for _ in range(5):
        average.update_parameters(network)
    assert torch.equal(average.module.table, network.table)


def test_before_weights_are_averaged_the_rate_falls_to_theirs():
    training = Training(epochs=4, swa_epochs=2, swa_rate=0.2, learning_rate=1.0, keep="last")
    rates = [
        learning_rate(training, step=step, steps_an_epoch=10, val_loss=()) for step in range(40)
    ]
    assert rates[0] == 1
    assert sorted(rates, reverse=True) == rates
    assert rates[20:] == [pytest.approx(0.2)] * 20


@pytest.mark.parametrize("balanced", [False, True])
def test_a_probe_is_logistic_regression_on_standardised_features(
    balanced: bool, monkeypatch: pytest.MonkeyPatch
):
    """scikit-learn's pipeline on the same features gives the same logits."""
    monkeypatch.setattr(linear_probe, "STRENGTHS", (0.01,))
    torch.manual_seed(0)
    network = build("test_resnet", findings=2)
    train_films, val = sides()
    fit_head(network, train=train_films, val=val, classes="balanced" if balanced else "natural")
    _, known = forward(network, films=train_films)
    logit, new = forward(network, films=val)
    for k in range(2):
        weight = "balanced" if balanced else None
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight=weight, max_iter=1000)
        )
        model.fit(known.astype(np.float64), train_films.plan.label[:, k])
        np.testing.assert_allclose(logit[:, k], model.decision_function(new), atol=2e-3)


def test_a_probe_takes_no_label_that_is_not_stated_and_predicts_prevalence_without_two_classes():
    generator = np.random.default_rng(0)
    feature = generator.normal(size=(40, 5)).astype(np.float32)
    label = (feature[:, :2] > 0).astype(np.float32)
    label[:, 1] = 0
    poisoned = label.copy()
    poisoned[:10, 0] = np.nan
    even = np.ones_like(label)
    later = np.where(np.arange(40) < 10, 0, 1)[:, None].astype(np.float32) * even
    ((slope, offset),) = logistic_heads(feature, poisoned, even, strengths=(1.0,))
    ((rest, _),) = logistic_heads(feature, label, later, strengths=(1.0,))
    assert np.isfinite(slope).all()
    assert np.corrcoef(slope[0], rest[0])[0, 1] > 0.99
    assert (slope[1] == 0).all()
    assert offset[1] == pytest.approx(np.log(0.5 / 40.5))


def test_balanced_classes_weigh_half_of_all_each():
    label = np.array([[1], [0], [0], [0], [np.nan]], np.float32)
    weight = np.array([[2], [1], [1], [0], [5]], np.float32)
    scaled = linear_probe.balanced_weights(label, weight)
    assert scaled[:, 0].tolist() == [2, 1, 1, 0, 0]
    alone = linear_probe.balanced_weights(label, np.array([[1], [0], [0], [0], [1]], np.float32))
    assert np.isfinite(alone).all()
    ((slope, offset),) = logistic_heads(
        np.arange(5, dtype=np.float32)[:, None], label, alone, strengths=(1.0,)
    )
    assert (slope.tolist(), offset[0]) == ([[0.0]], pytest.approx(np.log(1.5 / 0.5)))


def test_training_begins_with_the_probe_and_ends_with_the_head_found_anew(tmp_path: Path):
    plain = learn(tmp_path / "plain", toy_protocol("test_resnet", probe=True, keep="last"))
    again = learn(
        tmp_path / "again" / "test_resnet",
        toy_protocol("test_resnet", probe=True, keep="last", retrain="balanced"),
    )
    first, second = (
        pd.read_csv(tmp_path / one / "history.csv") for one in ("plain", "again/test_resnet")
    )
    assert second["epoch"].tolist() == [1, 2, 3]
    assert second["train_loss"].isna().tolist() == [False, False, True]
    assert describe_network(tmp_path / "again" / "test_resnet")["epochs"] == 2
    assert (plain.epoch, again.epoch) == (2, 3)
    assert first["val_auc"].tolist() == second["val_auc"].tolist()[:2]
    one, other = (dict(made.network.body.named_parameters()) for made in (plain, again))
    head = {name for name in one if (one[name] != other[name]).any()}
    assert head == {n for n, p in one.items() if p.shape[0] == 2}
    score, _ = forward(again.network, films=sides()[1])
    area = macro_auc(sides()[1].plan.label, score)
    assert second["val_auc"].iloc[-1] == pytest.approx(area)


VARIED = toy_protocol(
    "test_resnet", mixup=0.4, smoothing=0.05, augment="strong", augment_strength=0.5,
    unfreeze_epochs=1, layer_decay=0.8, probe=True, ema=0.9, dropout=0.2, optimizer="adamw",
)  # fmt: skip


@pytest.mark.parametrize(
    "varied", [VARIED, toy_protocol("test_resnet", epochs=3, swa_epochs=2, keep="last")]
)
def test_resumed_is_unbroken(varied: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Averages, thawed layers and mixed films go on where they were."""
    monkeypatch.setattr("lucency.models.checkpoint.Pace.is_due", lambda *_: True)
    monkeypatch.setattr(train_module, "SETTLE_STEPS", 1)
    whole = learn(tmp_path / "whole", varied)
    films = 36 * varied.training.epochs
    with pytest.raises(KilledError):
        learn(tmp_path / "broken", varied, dies_beyond(films - 20))
    broken = learn(tmp_path / "broken", varied)
    one, other = (made.network.body.state_dict() for made in (whole, broken))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_strong_augmentation_changes_everything_but_the_side_of_the_heart():
    film = np.full((64, 64), 60, np.uint8)
    cv2.circle(film, (16, 48), 8, 200, -1)
    changed = [augment(film, recipe="strong@1", seed=seed) for seed in range(40)]
    assert all(one[:, :32].mean() > one[:, 32:].mean() + 2 for one in changed)
    assert all(one[32:].mean() > one[:32].mean() for one in changed)
    assert len({one.tobytes() for one in changed}) == 40
    weak = [augment(film, recipe="strong@0.1", seed=seed) for seed in range(40)]
    far, near = (
        np.mean([np.abs(o - film.astype(float)).mean() for o in s]) for s in (changed, weak)
    )
    assert near < 0.5 * far
    assert np.array_equal(changed[3], augment(film, recipe="strong@1", seed=3))


def test_features_are_means_over_views():
    films, choice, rows = toy_films(8), Network(name="test_resnet"), np.array([4, 1])
    plain = embed(films, rows=rows, network=frozen_network(choice, root=Path()))
    three = embed(films, rows=rows, network=frozen_network(choice, root=Path()), views=2)
    moved = films.pixels.copy()
    seen = [plain]
    for view in range(2):
        shown = Films(
            prepared=films, plan=toy_plan(films).take(rows), copies=0, recipe="gentle", epoch=view
        )
        for place, row in enumerate(rows):
            moved[row] = shown.picture(place)
        seen.append(
            embed(
                replace(films, pixels=moved), rows=rows, network=frozen_network(choice, root=Path())
            )
        )
    np.testing.assert_allclose(three, np.mean(seen, axis=0), atol=1e-5)
    assert np.abs(three - plain).max() > 1e-3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ema": 0.9, "swa_epochs": 2}, "one average"),
        ({"swa_epochs": 10}, "expected fewer"),
        ({"swa_epochs": 2}, 'keep = "last"'),
        ({"swa_epochs": 2, "keep": "last", "patience": 2}, "leave patience out"),
        ({"swa_epochs": 8, "keep": "last", "warmup_epochs": 3}, "shorten one"),
        ({"unfreeze_epochs": 2, "patience": 2}, "leave frozen"),
        ({"swa_rate": 0.5}, "means nothing without swa_epochs"),
        ({"unfreeze_epochs": 10}, "expected fewer"),
        ({"unfreeze_epochs": 2, "frozen": 0.5}, "leave frozen"),
        ({"frozen": 0.5, "swa_epochs": 2, "keep": "last"}, "batch statistics"),
        ({"augment_strength": 2}, "means nothing to augment"),
        ({"loss": "two-way", "mixup": 0.4}, "no soft labels"),
        ({"schedule": "cyclic", "snapshots": 2, "ema": 0.9}, "snapshots are weights as they are"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Training.model_validate(choices)


def test_a_head_that_is_not_linear_is_refused_before_films_are_prepared():
    choice = Network(name="test_resnet", head=Head(pooling="csra"))
    check_choice(choice, root=Path(), training=Training())
    with pytest.raises(ValueError, match="one linear layer"):
        check_choice(choice, root=Path(), training=Training(probe=True))


def test_timm_still_numbers_layers_as_the_docs_state():
    """EfficientNet-Lite0: a stem, sixteen blocks (the last with the convolution behind), a head."""
    body = timm.create_model("efficientnet_lite0", num_classes=2)
    assert max(layer_numbers(body).values()) == 17
