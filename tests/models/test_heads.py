"""Heads: pooling between mean and maximum, layers as stated, and maps that agree with logits."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy.special import logsumexp
from torch import nn

from lucency.config.ensemble_section import EnsembleChoices
from lucency.config.sections import (
    ATTENTION,
    Balance,
    Head,
    Network,
    Pooling,
)
from lucency.explain.methods.cam import CAMS, cam
from lucency.explain.methods.network_split import logits, split
from lucency.models.features import embed, frozen_network
from lucency.models.heads import (
    ATTENTIONS,
    HEADS,
    POOLINGS,
    HeadedNetwork,
    has_linear_classifier,
    headed,
    lse_pool,
)
from lucency.models.networks import (
    NETWORKS,
    TIMM_NAMES,
    build,
    build_body,
    check_frozen,
    check_name,
    freeze,
)
from lucency.models.weights import initialise
from toys import toy_films

CHANNELS = 1024
DENSE = Head(pooling="average", dense=(32, 7), dropout=0.5)
average_pool, max_pool = POOLINGS["average"], POOLINGS["max"]
STAGED = ("mobilenetv2", "efficientnet_lite0", "test_resnet", "test_convnext", "test_vit")


def maps(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draw = np.random.default_rng(0).normal(0, scale, (2, 3, 5, 4))
    return torch.from_numpy(draw).to(dtype)


def network(head: Head, name: str = "test_resnet") -> HeadedNetwork:
    torch.manual_seed(0)
    return headed(name, head, num_classes=4, drop_rate=0.5).eval()


def wang(pooling: str) -> HeadedNetwork:
    return network(Head.model_validate({"pooling": pooling, "transition": CHANNELS}))


def test_the_protocol_offers_every_pooling() -> None:
    assert {*POOLINGS, *ATTENTIONS, "own"} == set(get_args(Pooling))
    assert set(ATTENTIONS) == set(ATTENTION)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 10.0])
def test_pooling_is_the_paper_s_formula(sharpness: float) -> None:
    found = lse_pool(maps(), sharpness=sharpness)
    expected = (logsumexp(sharpness * maps().numpy(), axis=(2, 3)) - np.log(20)) / sharpness
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_the_limits_are_mean_and_maximum() -> None:
    torch.testing.assert_close(
        lse_pool(maps(), sharpness=1e-6), average_pool(maps()), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(lse_pool(maps(), sharpness=1e6), max_pool(maps()), atol=1e-5, rtol=0)
    between = lse_pool(maps())
    assert ((average_pool(maps()) < between) & (between < max_pool(maps()))).all()


def test_pooling_is_stable_at_ten_thousand() -> None:
    large = maps(1e4, torch.float32).requires_grad_()
    found = lse_pool(large)
    expected = lse_pool(large.detach().double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    found.sum().backward()
    assert large.grad is not None
    share = large.grad.sum((2, 3))  # a softmax: what the maps share sums to one
    torch.testing.assert_close(share, torch.ones_like(share))
    assert torch.exp(10 * large.detach()).isinf().any()  # the formula without x* would not hold


def test_gradients_are_true() -> None:
    assert torch.autograd.gradcheck(lse_pool, (maps().requires_grad_(),))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_wang_s_maps_are_the_transition_s(pooling: str) -> None:
    model = wang(pooling)
    films = torch.randn(2, 3, 96, 96)
    feature = model.forward_features(films)
    assert (logits(model, films).shape, feature.shape) == ((2, 4), (2, CHANNELS, 3, 3))
    assert feature.min() >= 0


@pytest.mark.parametrize("pooling", ["average", "max", "lse"])
def test_cam_is_the_linear_layer_on_the_transition_s_maps(pooling: str) -> None:
    model, films = wang(pooling), torch.randn(2, 3, 96, 96)
    found = cam(model, films)
    feature = model.forward_features(films)
    expected = torch.nn.functional.conv2d(feature, model.classifier.weight[:, :, None, None])
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)
    if pooling == "average":
        torch.testing.assert_close(
            found.mean((2, 3)) + model.classifier.bias, logits(model, films), atol=1e-5, rtol=1e-4
        )


def test_a_dense_head_by_hand() -> None:
    """Every step written out with torch's functions alone."""
    model, films = network(DENSE), torch.randn(2, 3, 96, 96)
    first, second = model.dense[0], model.dense[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    body = timm.create_model("test_resnet", num_classes=0).eval()
    body.load_state_dict(model.body.state_dict())
    pooled = body.forward_features(films).mean((2, 3))
    hidden = torch.relu(pooled @ first.weight.T + first.bias)
    hidden = torch.relu(hidden @ second.weight.T + second.bias)
    expected = hidden @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits(model, films), expected, atol=1e-5, rtol=1e-4)
    feature = model.forward_head(model.forward_features(films), pre_logits=True)
    torch.testing.assert_close(feature, hidden, atol=1e-5, rtol=1e-4)
    assert [layer.p for layer in model.dense if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert model.num_features == 7


@pytest.mark.parametrize("side", [2, 3, 6, 7, 10])
def test_a_grid_is_the_means_of_nine_cells(side: int) -> None:
    """A cell goes from the floor to the ceiling of thirds of the side, as numpy slices it."""
    drawn = np.random.default_rng(side).normal(size=(2, 4, side, side))
    cuts = [(n * side // 3, -(-(n + 1) * side // 3)) for n in range(3)]
    cells = [drawn[..., a:b, c:d].mean((2, 3)) for a, b in cuts for c, d in cuts]
    found = POOLINGS["grid"](torch.from_numpy(drawn)).numpy()
    np.testing.assert_allclose(found, np.stack(cells, axis=2).reshape(2, 36), rtol=1e-12)


@pytest.mark.parametrize("name", STAGED)
@pytest.mark.parametrize("stage", [1, -1])
def test_a_cut_network_gives_the_maps_of_timm_s_stage(name: str, stage: int) -> None:
    """Against the whole network of timm, from which the cut one takes its weights."""
    torch.manual_seed(0)
    model = build_body(name, findings=3, head=Head(pooling="grid", stage=stage)).eval()
    assert isinstance(model, HeadedNetwork)
    whole: Any = timm.create_model(TIMM_NAMES.get(name, name)).eval()
    model.take_from(whole)
    films = torch.randn(1, 3, 160, 160) if name == "test_vit" else torch.randn(2, 3, 64, 64)
    _, stages = whole.forward_intermediates(films)
    feature = model.forward_features(films)
    torch.testing.assert_close(feature, stages[stage])
    embedding = model.forward_head(feature, pre_logits=True)
    assert embedding.shape[1] == model.num_features == 9 * feature.shape[1]
    model.forward_head(feature).sum().backward()
    assert [key for key, one in model.named_parameters() if one.grad is None] == []
    assert len(list(model.body.parameters())) < len(list(whole.parameters()))


def test_a_cut_network_is_filled_from_whole_weights_alone(tmp_path: Path) -> None:
    published: Any = timm.create_model("test_resnet", num_classes=10).eval()
    state = published.state_dict()
    save_file(state, tmp_path / "whole.safetensors")
    model = build_body("test_resnet", findings=3, head=Head(pooling="average", stage=2)).eval()
    choice = Network(name="test_resnet", weights="whole.safetensors", provenance="invented")
    assert initialise(model, choice=choice, root=tmp_path) == "invented (whole.safetensors)"
    films = torch.randn(1, 3, 64, 64)
    stages = published.forward_intermediates(films, intermediates_only=True)
    assert isinstance(model, HeadedNetwork)
    torch.testing.assert_close(model.forward_features(films), stages[2])
    del state["layer4.0.conv1.weight"]  # of a stage that the cut network has not
    save_file(state, tmp_path / "whole.safetensors")
    with pytest.raises(ValueError, match="1 tensors missing"):
        initialise(model, choice=choice, root=tmp_path)


def test_layers_of_a_cut_network_can_be_frozen() -> None:
    head = Head(pooling="grid", stage=1)
    network = build("test_resnet", findings=2, head=head)
    freeze(network, name="test_resnet", frozen=1.0)
    learning = [key for key, one in network.body.named_parameters() if one.requires_grad]
    assert learning == ["classifier.weight", "classifier.bias"]
    check_frozen("test_resnet", head=head, frozen="layer1")
    with pytest.raises(ValueError, match="has no layer 'layr1'"):
        check_frozen("test_resnet", head=head, frozen="layr1")


def test_a_cut_network_is_explained_by_gradients() -> None:
    films = torch.randn(2, 3, 96, 96)
    model = network(Head(pooling="grid", stage=2))
    assert CAMS["grad-cam"](model, films).shape == (2, 4, 12, 12)
    with pytest.raises(ValueError, match="not pooling and one linear layer: cam is not"):
        cam(model, films)
    model = network(Head(pooling="average", stage=2))
    found = cam(model, films).mean((2, 3)) + model.classifier.bias
    torch.testing.assert_close(found, logits(model, films), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "stage", "reason"),
    [
        ("test_resnet", 5, "has 5 stages: head.stage is 5, expected 0 to 4, or -5 to -1"),
        ("test_resnet", -6, "has 5 stages: head.stage is -6"),
        ("test_vit", 6, "has 6 stages"),
        ("test_nfnet", 0, r"test_nfnet has no stages .*, which head\.stage = 0"),
    ],
)
def test_stages_that_are_not_there_are_refused(
    name: str, stage: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(timm.models.nfnet.NormFreeNet, "forward_intermediates")
    with pytest.raises(ValueError, match=reason):
        check_name(name, head=Head(pooling="max", stage=stage))


def test_a_cut_that_leaves_layers_without_a_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm's cut does in CoaT and HRNet, whose branches are parallel."""
    with monkeypatch.context() as patch:
        patch.setattr(timm.models.resnet.ResNet, "prune_intermediate_layers", lambda *_, **__: None)
        with pytest.raises(ValueError, match=r"cannot be cut at stage 1: 30 of .* as layer2"):
            check_name("test_resnet", head=Head(pooling="max", stage=1))
    check_name("test_resnet", head=Head(pooling="max", stage=1))


def attention(head: Head, *, channels: int = 3, classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return ATTENTIONS[head.pooling](channels, classes, head=head).double().eval()


@pytest.mark.parametrize(
    ("chosen", "temperatures"),
    [
        ({"temperature": 2.5}, [2.5]),
        ({"temperature": 99}, [np.inf]),
        ({"attention_heads": 2}, [1, np.inf]),
        ({"attention_heads": 4}, [1, 2, 4, np.inf]),
        ({"attention_heads": 6}, [1, 2, 3, 4, 5, np.inf]),
        ({"attention_heads": 8}, [1, 2, 3, 4, 5, 6, 7, np.inf]),
    ],
)
def test_residual_attention_is_the_paper_s_equations(
    chosen: dict[str, Any], temperatures: list[float]
) -> None:
    """Zhu and Wu, equations 2 to 8, position by position; the maximum as T goes to infinity."""
    head = Head.model_validate({"pooling": "csra", "attention_weight": 0.3, **chosen})
    module = attention(head)
    weight = module.get_parameter("weight").detach().numpy()
    assert len(weight) == len(temperatures)
    expected = np.zeros((2, 4))
    for film, feature in enumerate(maps().flatten(2).numpy()):
        for weights, temperature in zip(weight, temperatures, strict=True):
            for finding, own in enumerate(weights):
                score = feature.T @ own / np.sqrt(own @ own)
                power = np.exp(temperature * score) if np.isfinite(temperature) else None
                share = score == score.max() if power is None else power / power.sum()
                attended = feature @ share
                together = feature.mean(1) + 0.3 * attended
                expected[film, finding] += together @ own / np.sqrt(own @ own)
    np.testing.assert_allclose(module(maps()).detach().numpy(), expected, rtol=1e-10)


def test_residual_attention_of_no_weight_is_average_pooling_and_a_linear_layer() -> None:
    module = attention(Head(pooling="csra", attention_weight=0.0))
    weight = module.get_parameter("weight")[0]
    expected = average_pool(maps()) @ (weight / weight.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(module(maps()), expected)


def test_cam_of_residual_attention_is_its_own_class_map() -> None:
    head = Head(pooling="csra", attention_weight=0.0, attention_heads=2)
    model, films = network(head), torch.randn(2, 3, 96, 96)
    found = cam(model, films)
    assert found.shape == (2, 4, 3, 3)
    torch.testing.assert_close(found.mean((2, 3)), logits(model, films), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("classes", [1, 5])
def test_a_decoder_by_hand(classes: int) -> None:
    """Ridnik et al., section 3: cross-attention of one query a class, then its own weights."""
    module = attention(Head(pooling="ml-decoder"), classes=classes)
    state = {key: one.detach().numpy() for key, one in module.state_dict().items()}
    layer = {k.removeprefix("decoder."): v for k, v in state.items()}

    def linear(one: np.ndarray, name: str) -> np.ndarray:
        return one @ layer[f"{name}.weight"].T + layer[f"{name}.bias"]

    def norm(one: np.ndarray, name: str) -> np.ndarray:
        centred = one - one.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / spread * layer[f"{name}.weight"] + layer[f"{name}.bias"]

    weights = np.split(layer["multihead_attn.in_proj_weight"], 3)
    biases = np.split(layer["multihead_attn.in_proj_bias"], 3)
    query = norm(2 * state["query_embed.weight"], "norm1")  # no self-attention: added to itself
    for film, logit in zip(maps().flatten(2).numpy(), module(maps()), strict=True):
        place = np.maximum(linear(film.T, "embed_standart"), 0)
        q, k, v = (
            (one @ w.T + b).reshape(-1, 8, 96).transpose(1, 0, 2)
            for one, w, b in zip((query, place, place), weights, biases, strict=True)
        )
        power = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(96))
        seen = (power / power.sum(-1, keepdims=True)) @ v
        seen = linear(seen.transpose(1, 0, 2).reshape(-1, 768), "multihead_attn.out_proj")
        one = norm(query + seen, "norm2")
        one = norm(one + linear(np.maximum(linear(one, "linear1"), 0), "linear2"), "norm3")
        expected = (one * state["duplicate_pooling"][:, :, 0]).sum(1)
        expected += state["duplicate_pooling_bias"]
        np.testing.assert_allclose(logit.detach().numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("pooling", ATTENTIONS)
def test_attention_is_explained_by_gradients_and_gives_the_maps_means(pooling: str) -> None:
    model = network(Head.model_validate({"pooling": pooling, "transition": 8}))
    films = torch.randn(2, 3, 96, 96)
    feature = model.forward_features(films)
    embedding = model.forward_head(feature, pre_logits=True)
    torch.testing.assert_close(embedding, feature.mean((2, 3)))
    assert not has_linear_classifier(model)
    for method in ("grad-cam", "hires-cam"):
        assert CAMS[method](model, films).shape == (2, 4, 3, 3)
    if pooling == "ml-decoder":
        with pytest.raises(ValueError, match="not pooling and one linear layer: cam is not"):
            cam(model, films)


def test_networks_whose_logits_are_not_linear_in_their_features_are_recognised() -> None:
    for name in ("test_vit", "test_convnext", "mobilenetv3_small_100", "volo_d1_224"):
        model: Any = timm.create_model(name, num_classes=2).eval()
        feature = model.forward_features(torch.randn(1, *model.pretrained_cfg["input_size"]))
        logit = model.get_classifier()(model.forward_head(feature, pre_logits=True))
        equal = torch.allclose(logit, model.forward_head(feature), atol=1e-5)
        assert has_linear_classifier(model) == equal == (name != "volo_d1_224")


def test_dropout_acts_in_training_alone() -> None:
    model, films = network(DENSE), torch.randn(2, 3, 96, 96)
    assert torch.equal(logits(model, films), logits(model, films))
    torch.manual_seed(1)
    model.dense.train()
    assert not torch.equal(logits(model, films), logits(model, films))


def test_a_dense_head_refuses_cam_and_is_explained_by_gradients() -> None:
    films = torch.randn(2, 3, 224, 224)
    for head in (DENSE, Head(pooling="max", dense=(96,))):  # 96: as many as maps
        model = network(head)  # 7 features: as many as the maps are wide
        feature = model.forward_features(films)
        assert feature.shape == (2, 96, 7, 7)
        parts = split(model, films)
        assert torch.equal(parts.grid(parts.feature), feature)
        assert CAMS["grad-cam"](model, films).shape == (2, 4, 7, 7)
        with pytest.raises(ValueError, match="not pooling and one linear layer: cam is not"):
            cam(model, films)


@pytest.mark.parametrize(
    "name", ["vgg11", "test_convnext", "mobilenetv3_small_100", "test_mambaout"]
)
def test_what_only_the_network_s_own_head_uses_is_left_out(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense layers (VGG), a norm (ConvNeXt) or a convolution (MobileNetV3) after the pooling."""
    monkeypatch.setitem(timm.models.vgg.cfgs, "vgg11", [8, "M", 8, "M", 8, "M", 8, "M"])  # narrow
    plain = Head(pooling="average")
    model, films = network(plain, name), torch.randn(2, 3, 160, 160)
    feature = model.forward_features(films)
    assert feature.shape[1] == model.num_features == model.map_channels
    logits(model, films).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert cam(model, films).shape == (2, 4, *feature.shape[2:])
    own = timm.create_model(name, num_classes=4).eval()
    left_out = own.state_dict().keys() - model.body.state_dict().keys()
    assert any("head" in key or "pre_logits" in key for key in left_out)
    model.body.load_state_dict({key: own.state_dict()[key] for key in model.body.state_dict()})
    maps_ = own.forward_features(films)
    maps_ = maps_.permute(0, 3, 1, 2) if name == "test_mambaout" else maps_
    torch.testing.assert_close(model.forward_features(films), maps_)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_mambaout"])
def test_published_weights_fill_the_body_under_a_stated_head(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = timm.create_model(name, num_classes=10)
    save_file(published.state_dict(), tmp_path / "published.safetensors")
    model = build_body(name, findings=3, head=Head(pooling="lse", dense=(16,)))
    assert isinstance(model, HeadedNetwork)
    last = model.classifier.weight.clone()
    choice = Network(name=name, weights="published.safetensors", provenance="invented")
    assert initialise(model, choice=choice, root=tmp_path) == "invented (published.safetensors)"
    films = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(
        model.eval().body.forward_features(films), published.eval().forward_features(films)
    )
    assert torch.equal(model.classifier.weight, last)
    other = Network(name=name, weights="other.safetensors", provenance="invented")
    del (state := published.state_dict())[next(iter(published.state_dict()))]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="1 tensors missing"):
        initialise(model, choice=other, root=tmp_path)


def test_features_of_films_are_those_of_the_stated_pooling() -> None:
    prepared, rows = toy_films(4, size=64), np.arange(4)
    peak, mean = (
        embed(
            prepared,
            rows=rows,
            network=frozen_network(Network(name="test_resnet", head=head), root=Path()),
        )
        for head in (Head(pooling="max"), Head(pooling="average"))
    )
    assert (peak >= mean).all()
    assert (peak > mean).any()
    plain = embed(
        prepared, rows=rows, network=frozen_network(Network(name="test_resnet"), root=Path())
    )
    assert plain.shape == mean.shape


def test_wang_s_networks_are_heads_of_the_zoo() -> None:
    names = [name for name in NETWORKS if "wang" in name]
    assert names == [f"resnet50-{name}" for name in HEADS]
    model = build("resnet50-wang", findings=2).body
    assert (model.pool, model.map_channels) == (lse_pool, CHANNELS)
    parts = dict.fromkeys(key.partition(".")[0] for key in model.state_dict())
    assert list(parts) == ["body", "transition", "classifier"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("alexnet", "keeps the head that it was published with"),
        ("resnet50-wang", "keeps the head that it was published with"),
        ("test_vit", r"the shape \(1, 101, 64\), which are no maps"),
        ("coat_tiny", "several kinds, which are no maps"),
    ],
)
def test_networks_without_maps_to_pool_are_refused(name: str, reason: str) -> None:
    check_name(name)
    with pytest.raises(ValueError, match=reason):
        check_name(name, head=Head(pooling="max"))


def test_impossible_choices_are_refused() -> None:
    for wrong in ({"dense": [8]}, {"transition": 8}, {"dropout": 0.5}, {"stage": 0}):
        with pytest.raises(ValueError, match="set pooling to"):
            Head.model_validate(wrong)
    with pytest.raises(ValueError, match="stage is true, expected a number"):
        Head.model_validate({"pooling": "max", "stage": True})
    with pytest.raises(ValueError, match="without them set training"):
        Head(pooling="max", dropout=0.5)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Head(pooling="max", dense=(0,))
    deep = {"name": "test_resnet", "weights": "timm", "head": {"pooling": "max", "dense": [8]}}
    with pytest.raises(ValueError, match="layers that nothing has trained"):
        EnsembleChoices.model_validate(
            {"frozen": [deep], "sources": ["frozen test_resnet"], "neighbours": 3}
        )
    with pytest.raises(ValueError, match="layers that nothing has trained"):
        Balance.model_validate({"method": "mlsmote", "features": deep})
    single = {"pooling": "csra", "attention_heads": 2, "temperature": 3}
    with pytest.raises(ValueError, match="temperature is 3: 2 attention_heads have the temp"):
        Head.model_validate(single)
    with pytest.raises(ValueError, match='means nothing to pooling "max"; it belongs to "csra"'):
        Head(pooling="max", attention_weight=0.3)
    with pytest.raises(ValueError, match='"ml-decoder" leads to logits at once'):
        Head(pooling="ml-decoder", dense=(8,))
    with pytest.raises(ValueError, match="1, 2, 4, 6 or 8"):
        Head.model_validate({"pooling": "csra", "attention_heads": 3})
    for sharpness in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            lse_pool(maps(), sharpness=sharpness)
