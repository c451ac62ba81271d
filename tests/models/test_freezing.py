"""Frozen layers stay byte for byte as they were, statistics too, and everything else learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_train import assert_same_weights, dies_at_call, learn, weights
from torch import nn

from lucency.config.sections import Head, Training
from lucency.models import training as train_module
from lucency.models.networks import OWN, build, check_frozen, freeze
from toys import KilledError, toy_protocol

WANG = Head(pooling="lse", transition=16, dense=(8,))


def stepped(name: str, frozen: float | str, head: Head = OWN) -> tuple[set[str], set[str]]:
    """Return the tensors that three steps leave as they were, and those that they change."""
    torch.manual_seed(0)
    network = build(name, findings=2, head=head)
    freeze(network, name=name, frozen=frozen)
    before = {key: value.clone() for key, value in network.body.state_dict().items()}
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.01, weight_decay=0.1)
    network.train()
    for _ in range(3):
        films = torch.randint(0, 256, (4, 96, 96), dtype=torch.uint8)
        optimizer.zero_grad()
        network(films).square().sum().backward()
        optimizer.step()
    assert [p for p in network.parameters() if not p.requires_grad and p.grad is not None] == []
    after = network.body.state_dict()
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    return same, before.keys() - same


def parts(keys: set[str]) -> set[str]:
    return {key.partition(".")[0] for key in keys}


def test_a_named_layer_is_frozen_with_all_before_it() -> None:
    same, changed = stepped("test_resnet", "layer2.0.bn1")
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    inside = {f"layer2.0.bn1.{key}" for key in statistics} | {"layer2.0.conv1.weight"}
    assert {key for key in same if key.startswith("layer2")} == inside
    assert parts(same - inside) == {"conv1", "bn1", "layer1"}
    assert parts(changed) == {"layer2", "layer3", "layer4", "fc"}
    assert "layer2.0.bn2.running_mean" in changed


def test_a_share_counts_layers_from_the_input() -> None:
    network = build("test_resnet", findings=2)
    body = [
        name
        for name, module in network.body.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    same, _ = stepped("test_resnet", 0.5)
    frozen = {key.rpartition(".")[0] for key in same}
    assert [name for name in body if name in frozen] == body[: round(len(body) / 2)]
    assert len({key.rpartition(".")[0] for key in stepped("test_resnet", 1e-6)[0]}) == 1


@pytest.mark.parametrize(
    ("name", "head", "learns"),
    [
        ("test_resnet", OWN, {"fc"}),
        ("test_convnext", OWN, {"head"}),
        ("test_efficientnet", WANG, {"transition", "dense", "classifier"}),
    ],
)
def test_all_of_the_body_is_what_comes_before_the_head(
    name: str, head: Head, learns: set[str]
) -> None:
    _, changed = stepped(name, 1.0, head)
    assert parts(changed) == learns


@pytest.mark.parametrize(("name", "head"), [("alexnet", "classifier"), ("test_vit", "head")])
def test_heads_of_other_networks(name: str, head: str) -> None:
    """AlexNet's dense layers are its head, and a transformer's tokens and places are its body."""
    network = build(name, findings=2)
    freeze(network, name=name, frozen=1.0)
    learning = {key for key, p in network.body.named_parameters() if p.requires_grad}
    assert parts(learning) == {head}


def test_training_leaves_frozen_layers_alone_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lucency.models.checkpoint.Pace.is_due", lambda *_: True)
    monkeypatch.setattr(train_module, "SETTLE_STEPS", 1)
    about = {"frozen": "layer2", "dropout": 0.3, "weight_decay": 0.1, "keep": "last"}
    protocol = toy_protocol("test_resnet", **about, optimizer="adamw")
    learn(tmp_path / "whole", protocol)
    first = learn(tmp_path / "other", toy_protocol("test_resnet", **about, epochs=1))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "other")
    same = {key for key in one if np.array_equal(one[key], other[key])}
    assert parts(same) == {"conv1", "bn1", "layer1", "layer2"}
    assert parts(one.keys() - same) == {"layer3", "layer4", "fc"}
    assert all(p.requires_grad for p in first.network.parameters())  # a classifier is not frozen
    with pytest.raises(KilledError):
        learn(tmp_path / "broken", protocol, dies_at_call(5))
    learn(tmp_path / "broken", protocol)
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")


def test_frozen_for_ever_is_frozen_in_all_epochs(tmp_path: Path) -> None:
    """Two ways to state it: the older one, held by the tests of training, gives the same bytes."""
    for name, about in {"ever": {"frozen": 1.0}, "epochs": {"frozen_epochs": 2}}.items():
        learn(tmp_path / name, toy_protocol("test_resnet", **about))
    assert_same_weights(tmp_path / "ever", tmp_path / "epochs")


def test_snapshots_and_first_epochs_keep_frozen_layers(tmp_path: Path) -> None:
    about = {"frozen": "layer1", "frozen_epochs": 1, "schedule": "cyclic", "snapshots": 2}
    learn(tmp_path / "net", toy_protocol("test_resnet", keep="last", **about))
    early, late = (
        load_file(tmp_path / "net" / f"snapshot-{number}.safetensors") for number in (1, 2)
    )
    changed = {key for key in early if not np.array_equal(early[key], late[key])}
    assert parts(changed) == {"layer2", "layer3", "layer4", "fc"}


def test_the_transition_of_a_stated_head_learns_while_the_body_does_not(tmp_path: Path) -> None:
    protocol = toy_protocol("test_resnet", epochs=1, frozen_epochs=1)
    choice = protocol.network[0].model_copy(update={"head": WANG})
    protocol = protocol.model_copy(update={"network": (choice,)})
    learn(tmp_path / "one", protocol)
    longer = toy_protocol("test_resnet", epochs=2, frozen_epochs=2, keep="last")
    learn(tmp_path / "two", longer.model_copy(update={"network": (choice,)}))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    changed = {key for key in one if not np.array_equal(one[key], two[key])}
    assert parts(changed) == {"transition", "dense", "classifier"}
    assert not np.array_equal(one["transition.1.running_mean"], two["transition.1.running_mean"])


def test_unknown_layers_and_impossible_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no layer 'layer9' .* conv1, bn1, .*nearest is 'layer"):
        check_frozen("test_resnet", head=OWN, frozen="layer9")
    with pytest.raises(ValueError, match="no layer 'fc' before its head"):
        check_frozen("test_resnet", head=OWN, frozen="fc")
    for right in (0.0, 0.5, "layer4", "layer4.0.conv2", "maxpool"):
        check_frozen("test_resnet", head=OWN, frozen=right)
    for wrong in (True, -0.1, 1.1, "", None, float("nan"), [0.5]):
        with pytest.raises(ValueError, match="expected a share from 0 to 1, or the name of a"):
            Training.model_validate({"frozen": wrong})


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_body_that_thaws_learns_with_every_optimiser(tmp_path: Path, optimizer: str) -> None:
    about = {"frozen_epochs": 1, "keep": "last", "optimizer": optimizer}
    learn(tmp_path / "one", toy_protocol("test_resnet", epochs=1, **about))
    learn(tmp_path / "two", toy_protocol("test_resnet", epochs=2, **about))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert "layer1" in parts({key for key in one if not np.array_equal(one[key], two[key])})
