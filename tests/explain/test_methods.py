"""Heatmaps of evidence: equal to the field's package, true to hand-set networks, harmless."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from test_predict import classifier
from torch import Tensor, nn
from torch.nn import functional

from lucency.explain.heatmaps import MethodError, even_centres
from lucency.explain.methods import attribution
from lucency.explain.methods.attribution import integrated_gradients
from lucency.explain.methods.cam import cam
from lucency.explain.methods.faithfulness_tests import CURVES, randomised, stability
from lucency.explain.methods.network_split import blank, gradients, logits, split
from lucency.explain.methods.registry import FINEST, HEATMAPS, check_request, explain, heatmaps
from lucency.models.networks import NETWORKS
from toys import FINDINGS, toy_films, toy_plan

ORACLES = {
    "grad-cam": pytorch_grad_cam.GradCAM,
    "grad-cam++": pytorch_grad_cam.GradCAMPlusPlus,
    "hires-cam": pytorch_grad_cam.HiResCAM,
    "layer-cam": pytorch_grad_cam.LayerCAM,
    "x-grad-cam": pytorch_grad_cam.XGradCAM,
}
FINDING_COUNT, SIDE, CELL = 3, 32, 4
deletion_curve, insertion_curve = CURVES["deletion"], CURVES["insertion"]
PER_PIXEL = ("integrated-gradients", "smooth-grad")
ROLLOUT = "attention-rollout"
LIKE_RESNET50_WANG = ("resnet50-wang-average", "resnet50-wang-max")  # their heads: test_heads.py


@cache
def shared_network(name: str) -> nn.Module:
    """A network that tests look at and leave as it is."""
    return timm_network(name)


def timm_network(name: str, **choices: object) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=FINDING_COUNT, **choices).eval()
    if name == "test_resnet":
        for norm in network.modules():  # as if trained: no two channels alike
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.running_mean, -0.2, 0.2)
                nn.init.uniform_(norm.running_var, 0.5, 2)
    return network


def noise(count: int, size: int) -> Tensor:
    draw = np.random.default_rng(0).standard_normal((count, 3, size, size), dtype=np.float32)
    return torch.from_numpy(draw)


def network_for(method: str) -> tuple[nn.Module, Tensor]:
    """A small network that allows the method, and films for it."""
    if method == ROLLOUT:
        return timm_network("test_vit", img_size=64), noise(2, 64)
    return timm_network("test_resnet"), noise(2, 64)


class Discs(nn.Module):
    """Sees bright cells for finding 0 and dark ones for finding 1."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.fc.weight.data = torch.tensor([[4.0, -1.0], [-1.0, 4.0]])

    def forward_features(self, pixels: Tensor) -> Tensor:
        cell = functional.avg_pool2d(pixels.mean(1, keepdim=True), CELL)
        return torch.cat([(cell - 0.3).relu(), (-cell - 0.3).relu()], dim=1)

    def forward_head(self, maps: Tensor, *, pre_logits: bool = False) -> Tensor:
        pooled = maps.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def get_classifier(self) -> nn.Module:
        return self.fc


def bright_transformer() -> nn.Module:
    """One block whose class token attends to bright patches."""
    network = timm.create_model(
        "test_vit", img_size=SIDE, patch_size=CELL, depth=1, num_heads=1, num_classes=2
    ).eval()
    block = network.blocks[0]
    block.norm1 = nn.Identity()
    for part in (network.patch_embed.proj, block.attn.qkv):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    network.cls_token.data.zero_()
    network.pos_embed.data.zero_()
    network.patch_embed.proj.weight.data[0] = 1 / (3 * CELL * CELL)
    width = network.embed_dim
    block.attn.qkv.bias.data[0] = 50.0  # the query asks,
    block.attn.qkv.weight.data[width, 0] = 1.0  # the key is brightness
    return network


def disc_films() -> tuple[Tensor, np.ndarray]:
    """Four films with a bright and a dark disc each, and their centres [film, finding, (y, x)]."""
    centre = np.array(
        [[[6, 6], [24, 22]], [[26, 6], [6, 26]], [[14, 26], [14, 6]], [[6, 14], [26, 18]]]
    )
    films = np.random.default_rng(1).normal(0, 0.02, (4, SIDE, SIDE)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    for film, pair in zip(films, centre, strict=True):
        for (row, column), shade in zip(pair, (1, -1), strict=True):
            film[(y - row) ** 2 + (x - column) ** 2 <= 20] = shade
    return torch.from_numpy(films)[:, None].repeat(1, 3, 1, 1), centre


def strongest(maps: Tensor) -> np.ndarray:
    """The centre of each map's strongest cell, in pixels (b, k, 2)."""
    height, width = maps.shape[2:]
    place = np.stack(np.unravel_index(maps.flatten(2).argmax(2).numpy(), (height, width)), -1)
    return (place + 0.5) * SIDE / np.array([height, width])


def everything_of(network: nn.Module) -> list[object]:
    state = {key: value.numpy().tobytes() for key, value in network.state_dict().items()}
    modules = [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, "fused_attn", 0))
        for m in network.modules()
    ]
    slopes = [
        (p.requires_grad, p.grad is None or p.grad.numpy().tobytes()) for p in network.parameters()
    ]
    return [modules, slopes, state]


def reshaped(tokens: Tensor) -> Tensor:
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


def target_of(network: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor] | None]:
    """The layer that the package must be given for the same definition."""
    if hasattr(network, "patch_embed"):
        return network.blocks[-1].norm1, reshaped
    return (network.layer4 if hasattr(network, "layer4") else network.features), None


def test_no_method_is_forgotten() -> None:
    others = {"cam", "occlusion", ROLLOUT, *PER_PIXEL}
    assert {*ORACLES, *others} == set(HEATMAPS)


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize(
    ("name", "size"), [("test_resnet", 160), ("densenet121", 64), ("test_vit", 160)]
)
def test_equal_to_the_package_grad_cam(method: str, name: str, size: int) -> None:
    network, films = shared_network(name), noise(2, size)
    layer, reshape = target_of(network)
    found = HEATMAPS[method](network, films)
    for finding in range(FINDING_COUNT):
        oracle = ORACLES[method](model=network, target_layers=[layer], reshape_transform=reshape)
        expected = oracle(films, [ClassifierOutputTarget(finding)] * 2)
        positive = np.maximum(found[:, finding].numpy(), 0)
        scaled = scale_cam_image(scale_cam_image(positive, (size, size)))
        np.testing.assert_allclose(scaled, expected, atol=1e-4)
        oracle.activations_and_grads.release()
    assert found.std() > 0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer passes a map, where its values do not matter."""
    monkeypatch.setattr(attribution, "PATH_POINTS", 4)
    monkeypatch.setattr(attribution, "NOISY_COPIES", 4)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("method", HEATMAPS)
def test_contract(method: str) -> None:
    network, films = network_for(method)
    maps = HEATMAPS[method](network, films)
    grid = (64, 64) if method in PER_PIXEL else (4, 4) if method == ROLLOUT else (2, 2)
    assert maps.shape == (2, FINDING_COUNT, *grid)
    assert (maps.dtype, maps.requires_grad) == (torch.float32, False)
    with torch.inference_mode():
        alone = HEATMAPS[method](network, films[1:], findings=[2])
    torch.testing.assert_close(alone[0, 0], maps[1, 2], rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="columns 0 to 2"):
        HEATMAPS[method](network, films, findings=[3])
    with pytest.raises(ValueError, match="finding nothing is not among"):
        HEATMAPS[method](network, films, findings=[])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("method", HEATMAPS)
def test_the_network_is_as_it_was(method: str) -> None:
    network, films = network_for(method)
    network.train()
    next(network.parameters()).requires_grad = False
    network.get_classifier().eval()
    weight = network.get_classifier().weight
    weight.grad = torch.ones_like(weight)
    before = everything_of(network)
    first = HEATMAPS[method](network, films, findings=[1])
    assert everything_of(network) == before
    assert torch.equal(first, HEATMAPS[method](network, films, findings=[1]))
    network(films)  # in training mode running statistics move: the check above can fail
    if method != ROLLOUT:
        assert everything_of(network) != before


@pytest.mark.parametrize("method", HEATMAPS)
def test_maps_find_planted_discs(method: str) -> None:
    films, centre = disc_films()
    network = bright_transformer() if method == ROLLOUT else Discs()
    apart = np.abs(strongest(HEATMAPS[method](network, films)) - centre).max(-1)
    assert (apart[:, 0] <= 6).all()
    assert (apart[:, 1] <= 6).all() or method == ROLLOUT


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("method", HEATMAPS)
def test_maps_change_with_the_head(method: str) -> None:
    network, films = network_for(method)
    name, other = next(randomised(network, seed=0))
    assert other.get_submodule(name) is other.get_classifier()
    before, after = (HEATMAPS[method](n, films, findings=[0]) for n in (network, other))
    assert torch.equal(before, after) == (method == ROLLOUT)  # which does not depend on the finding


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LIKE_RESNET50_WANG else ())
        for name in NETWORKS
        if "eva-x" not in name  # a transformer, as those below
    ],
)
def test_every_network_of_the_zoo(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 224 if name == "alexnet-reference" else 80
    network = NETWORKS[name](num_classes=FINDING_COUNT, drop_rate=0.5).eval()
    films = noise(1, size)
    parts = split(network, films)
    feature = parts.feature.shape
    assert parts.grid(parts.feature).shape == feature
    assert torch.equal(parts.head(parts.feature), logits(network, films))
    monkeypatch.setattr("lucency.explain.methods.cam.split", lambda *_: parts)
    for method in {*ORACLES, "cam"} if "alexnet" not in name else ORACLES:
        assert HEATMAPS[method](network, films).shape == (1, FINDING_COUNT, *feature[2:])
    if "alexnet" in name:
        with pytest.raises(ValueError, match="not pooling and one linear layer"):
            cam(network, films)


def test_densenet_is_explained_after_its_last_relu() -> None:
    network = shared_network("densenet121")
    assert split(network, noise(1, 64)).feature.min() >= 0


@pytest.mark.parametrize(
    ("name", "size"), [("test_vit", 160), ("test_vit_relpos", 160), ("eva02_tiny_patch14_224", 224)]
)
def test_transformers_are_cut_where_patches_still_count(name: str, size: int) -> None:
    network, films = timm_network(name), noise(1, size)
    parts = split(network, films)
    assert torch.allclose(parts.head(parts.feature), logits(network, films), atol=1e-5)
    assert all(slope.abs().amax() > 0 for slope in gradients(parts, None))
    after = network.forward_features(films).detach().requires_grad_()
    (slope,) = torch.autograd.grad(network.forward_head(after).sum(), after)
    if name == "test_vit":
        assert slope[:, 1:].abs().amax() == 0  # a cut after the last block would show nothing


def test_networks_that_cannot_be_cut_are_refused() -> None:
    films = noise(1, 224)
    with pytest.raises(MethodError, match="more than a norm follows its last block"):
        split(timm_network("cait_xxs24_224", depth=1), films)
    with pytest.raises(MethodError, match="its features have the shape"):
        split(timm_network("mixer_s32_224"), films)
    with pytest.raises(ValueError, match="lacks forward_features"):
        split(nn.Linear(2, 2), films)
    with pytest.raises(MethodError, match="no attention between all patches"):
        HEATMAPS[ROLLOUT](timm_network("test_resnet"), films)
    for name in ("test_convnext", "test_vit"):  # a norm after the pooling; a class token
        with pytest.raises(ValueError, match="cam is not defined"):
            cam(timm_network(name), noise(1, 160))


def test_cam_and_hires_cam_add_up_to_the_logit() -> None:
    network, films = timm_network("test_resnet"), noise(2, 96)
    evidence = logits(network, films) - network.get_classifier().bias
    torch.testing.assert_close(cam(network, films).mean((2, 3)), evidence, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        HEATMAPS["hires-cam"](network, films).sum((2, 3)), evidence, rtol=1e-4, atol=1e-6
    )


def test_integrated_gradients_are_complete() -> None:
    network, films = timm_network("test_vit", img_size=64), noise(2, 64)
    gained = logits(network, films) - logits(network, blank(films))
    total = integrated_gradients(network, films).sum((2, 3))
    torch.testing.assert_close(total, gained, rtol=1e-3, atol=1e-4)
    assert gained.abs().amax() > 0.05


def test_occlusion_is_the_fall_of_the_logit() -> None:
    network, (films, _) = Discs(), disc_films()
    covered = films.clone()
    covered[..., 4:8, 4:8] = films.mean((2, 3), keepdim=True)
    expected = logits(network, films) - logits(network, covered)
    torch.testing.assert_close(HEATMAPS["occlusion"](network, films)[:, :, 1, 1], expected)


def test_rollout_by_hand() -> None:
    network, films = timm_network("test_vit", img_size=64), 20 * noise(1, 64)
    with torch.no_grad():
        token = network._pos_embed(network.patch_embed(films))
        flow = np.eye(token.shape[1])
        for block in network.blocks:
            attention = block.attn
            inside = block.norm1(token)
            query, key, _ = (
                attention.qkv(inside).unflatten(2, (3, attention.num_heads, -1)).unbind(2)
            )
            query, key = attention.q_norm(query)[0].numpy(), attention.k_norm(key)[0].numpy()
            heads = []
            for head in range(attention.num_heads):
                power = np.exp(query[:, head] @ key[:, head].T * attention.scale)
                heads.append(power / power.sum(1, keepdims=True))
            flow = (0.5 * np.mean(heads, 0) + 0.5 * np.eye(len(flow))) @ flow
            token = block(token)
    found = HEATMAPS[ROLLOUT](network, films, findings=[0])[0, 0]
    np.testing.assert_allclose(found.numpy().ravel(), flow[0, 1:], rtol=1e-4)


def test_curves_tell_a_true_map_from_a_false_one() -> None:
    network, (films, _) = Discs(), disc_films()
    heat = cam(network, films)[:, 0]
    probability = logits(network, films)[:, 0].sigmoid()
    bare = logits(network, blank(films))[:, 0].sigmoid()
    common = {"findings": [0] * len(films), "steps": 16}
    removed = deletion_curve(network, films, heatmap=heat, **common)
    assert removed.shape == (4, 17)
    torch.testing.assert_close(removed[:, [0, -1]], torch.stack([probability, bare], 1))
    assert (removed.mean(1) < deletion_curve(network, films, heatmap=-heat, **common).mean(1)).all()
    given = insertion_curve(network, films, heatmap=heat, **common)
    torch.testing.assert_close(given[:, -1], probability)
    assert (given.mean(1) > insertion_curve(network, films, heatmap=-heat, **common).mean(1)).all()
    with pytest.raises(ValueError, match="at least 1"):
        deletion_curve(network, films, heatmap=heat, findings=[0] * 4, steps=0)


def test_each_step_of_a_curve_removes_its_share() -> None:
    network, films = Discs(), torch.zeros(1, 3, 32, 32)
    films[..., :16, :] = 1.0
    rows = torch.arange(32, 0, -1.0).view(1, 32, 1).expand(1, 32, 32)
    found = deletion_curve(network, films, heatmap=rows, findings=[0], steps=4).logit()
    sharpest = 4 * 0.7 * torch.tensor([0.5, 0.25, 0, 0, 0])  # blank is 0.5: 0.2 above the threshold
    veiled = 4 * 0.2 * torch.tensor([0, 0.25, 0.5, 0.75, 1])
    torch.testing.assert_close(found[0], sharpest + veiled + network.fc.bias[0])


def test_stability_over_shifts() -> None:
    network, (films, _) = Discs(), disc_films()
    assert (stability(network, films, method=cam, shift=CELL) > 0.99).all()

    def unstable(_: nn.Module, pixels: Tensor, *, findings: object) -> Tensor:
        seed = int(pixels.double().sum().abs() * 1e6)
        return torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 2, 16, 16)))

    assert stability(network, films, method=unstable, shift=CELL).abs().mean() < 0.3
    flat = stability(network, torch.zeros(1, 3, 32, 32), method=cam, shift=1)
    assert flat.isnan().all()
    with pytest.raises(ValueError, match="expected 1 to 15 pixels"):
        stability(network, films, method=cam, shift=16)


def test_randomised_cascades_from_the_head_down() -> None:
    network = timm_network("test_resnet")
    original = {key: value.clone() for key, value in network.state_dict().items()}
    copies = list(randomised(network, seed=0))
    names = [name for name, _ in copies]
    assert names[0] == "fc"
    assert names.index("layer4.0") < names.index("layer1.0") < names.index("conv1.0")
    kept = [
        {key for key, value in copy.named_parameters() if torch.equal(value, original[key])}
        for _, copy in copies
    ]
    assert {key.split(".")[0] for key in set(original) - kept[0]} >= {"fc"}
    assert "conv1.0.weight" in kept[-2]
    assert "conv1.0.weight" not in kept[-1]
    assert all(later <= earlier for earlier, later in pairwise(kept))
    assert all(torch.equal(value, original[key]) for key, value in network.state_dict().items())
    again, other = (next(randomised(network, seed=seed))[1].fc.weight for seed in (0, 1))
    assert torch.equal(again, copies[0][1].fc.weight)
    assert not torch.equal(again, other)


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_all_that_a_transformer_knows_is_drawn_anew(name: str) -> None:
    network = timm_network(name)
    original = {key: value.clone() for key, value in network.named_parameters()}
    copies = [copy for _, copy in randomised(network, seed=0, copies=2)]
    changed = [
        {key for key, value in copy.named_parameters() if not torch.equal(value, original[key])}
        for copy in copies
    ]
    some = {key for key, value in original.items() if value.any()}
    assert changed[1] == some
    assert changed[0] == {key for key in some if key.startswith("head")}


@pytest.mark.usefixtures("few")
def test_maps_of_pixels_are_reduced_to_means() -> None:
    films = toy_films(4, size=112)
    model, plan = classifier(films.preparation), toy_plan(films).take(np.arange(2))
    found = explain(
        model, prepared=films, plan=plan, method="integrated-gradients", findings=FINDINGS
    )
    pictures = model.network.pictures(torch.from_numpy(films.pixels[plan.row]))
    whole = HEATMAPS["integrated-gradients"](model.network.body, pictures, findings=[0, 1])
    expected = whole.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).numpy()
    np.testing.assert_allclose(found.grid, expected, atol=1e-5 * np.abs(expected).max())
    assert len(found.centres.down) == FINEST
    with pytest.raises(ValueError, match="'cam' is named twice"):
        check_request(model, methods=["cam", "cam"], findings=FINDINGS)


def test_cells_that_cut_pixels_are_still_means_and_cells_of_features_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100 pixels make 56 cells, a vision transformer of 960 pixels 60: these lie elsewhere."""
    ramp = torch.arange(100.0).expand(1, 1, 100, 100)
    monkeypatch.setitem(HEATMAPS, "smooth-grad", lambda *_, findings: ramp)
    monkeypatch.setitem(HEATMAPS, "cam", lambda *_, findings: ramp)
    what = {"network": nn.Identity(), "pixels": torch.zeros(1, 3, 100, 100), "findings": [0]}
    found = heatmaps(method="smooth-grad", **what)
    centre = even_centres((FINEST, FINEST)).across * 100 - 0.5
    assert found.mean().item() == pytest.approx(49.5, abs=1e-4)
    np.testing.assert_allclose(found[0, 0, 5].numpy(), centre, atol=0.3)
    assert heatmaps(method="cam", **what) is ramp


def test_explain_names_films_and_findings() -> None:
    films = toy_films(20)
    model, plan = classifier(films.preparation), toy_plan(films)
    plan = plan.take(plan.part != "train")
    found = explain(model, prepared=films, plan=plan, method="grad-cam", findings=FINDINGS[1:])
    assert found.findings == FINDINGS[1:]
    assert found.image.tolist() == films.manifest.image[plan.row].tolist()
    assert found.grid.shape == (len(plan), 1, 1, 1)
    with pytest.raises(ValueError, match="nearest is 'grad-cam'"):
        explain(model, prepared=films, plan=plan, method="gradcam", findings=FINDINGS)
    with pytest.raises(ValueError, match="does not know 'Hernia'"):
        explain(model, prepared=films, plan=plan, method="cam", findings=["Hernia"])


@pytest.mark.parametrize("size", [0, 24])
def test_pictures_are_what_the_body_sees(size: int) -> None:
    films = toy_films(4)
    network = classifier(films.preparation).network
    network.size = size
    grey = torch.from_numpy(films.pixels)
    assert torch.equal(logits(network.body, network.pictures(grey)), network(grey))
