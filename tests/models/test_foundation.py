"""Foundation models: layouts are tested with random weights in the published shapes.

Nothing is downloaded. EVA-X's names and shapes are those of classification/models/models_eva.py
and eva_x.py of github.com/hustvl/EVA-X (commit c65f047); RAD-DINO's two files are written by
transformers, or have the names of timm, which are those of DINOv2's authors.
"""

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import eva, vision_transformer
from torch import Tensor

from lucency.config.sections import Network
from lucency.models.features import embed, frozen_network
from lucency.models.foundation import FOUNDATIONS
from lucency.models.networks import build, build_body, build_chosen, check_name
from lucency.models.weights import LAYOUTS, fetch_weights, fingerprint_weights, initialise
from toys import toy_films

WIDTHS = {"tiny": 192, "small": 384, "base": 768}
State = dict[str, Tensor]


def published_eva_x(size: str, *, device: str = "cpu") -> State:
    """Return tensors as `eva_x_SIZE_patch16_merged520k_mim.pt` names them; 14 x 14 patches."""
    width = WIDTHS[size]
    hidden = width * 8 // 3
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 197, width),
        "mask_token": (1, 1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "rope.freqs_cos": (196, 64),
        "rope.freqs_sin": (196, 64),
        "lm_head.weight": (512, width),
        "lm_head.bias": (512,),
    }
    fused: dict[str, tuple[int, ...]] = {
        "attn.qkv.weight": (3 * width, width),
        "mlp.w12.weight": (2 * hidden, width),
        "mlp.w12.bias": (2 * hidden,),
    }
    apart: dict[str, tuple[int, ...]] = {
        **{f"attn.{one}_proj.weight": (width, width) for one in "qkv"},
        **{f"mlp.{one}.weight": (hidden, width) for one in ("w1", "w2")},
        **{f"mlp.{one}.bias": (hidden,) for one in ("w1", "w2", "ffn_ln")},
        "mlp.ffn_ln.weight": (hidden,),
    }
    block: dict[str, tuple[int, ...]] = {
        **{f"attn.{one}": (width,) for one in ("q_bias", "v_bias", "proj.bias")},
        **{f"norm{one}.{kind}": (width,) for one in (1, 2) for kind in ("weight", "bias")},
        "attn.proj.weight": (width, width),
        "attn.rope.freqs_cos": (196, 64),
        "attn.rope.freqs_sin": (196, 64),
        "mlp.w3.weight": (width, hidden),
        "mlp.w3.bias": (width,),
        **(apart if size == "base" else fused),
    }
    shapes |= {f"blocks.{at}.{key}": shape for at in range(12) for key, shape in block.items()}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return {key: 0.1 * torch.randn(shape, device=device) for key, shape in shapes.items()}


def published_dino(width: int = 32, *, depth: int = 2, grid: int = 4) -> tuple[State, State]:
    """Return RAD-DINO's two files: as transformers names its tensors, and as DINOv2's authors do.

    The published width is 768, its depth 12 and its grid 37 x 37.
    """
    body: Any = timm.create_model(
        "vit_base_patch14_dinov2", num_classes=0, **tiny(width=width, depth=depth, grid=grid)
    )
    original = {key: torch.randn_like(value) for key, value in body.state_dict().items()}
    original["mask_token"] = torch.randn(1, width)
    plain = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    inner = {
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    hub: State = {}
    for key, value in original.items():
        if ".attn.qkv." in key:
            ahead, kind = key.replace("blocks.", "encoder.layer.").split("attn.qkv.")
            for part, one in zip(("query", "key", "value"), value.chunk(3), strict=True):
                hub[f"{ahead}attention.attention.{part}.{kind}"] = one.clone()
            continue
        renamed = plain.get(key, key.replace("blocks.", "encoder.layer."))
        for ours, theirs in inner.items():
            renamed = renamed.replace(ours, theirs)
        hub[renamed] = value
    return hub, original


def tiny(*, width: int = 32, depth: int = 2, grid: int = 4) -> dict[str, Any]:
    return {"embed_dim": width, "depth": depth, "num_heads": 4, "img_size": grid * 14}


def folder_of(tmp_path: Path, **arguments: Any) -> str:
    """Return the name of a tiny DINOv2 in a folder of timm's: config.json and model.safetensors."""
    torch.manual_seed(0)
    body = timm.create_model("vit_base_patch14_dinov2", num_classes=0, **arguments)
    folder = tmp_path / "tiny-dino"
    folder.mkdir()
    about = {"mean": [0.4] * 3, "std": [0.2] * 3, "input_size": [3, 56, 56]}
    config = {
        "architecture": "vit_base_patch14_dinov2",
        "num_classes": 0,
        "model_args": arguments,
        "pretrained_cfg": {**about, "num_classes": 0, "classifier": "head"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(body.state_dict(), folder / "model.safetensors")
    return f"local-dir:{folder}"


def without_head(body: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    state = body.state_dict()
    return {key: tuple(one.shape) for key, one in state.items() if not key.startswith("head.")}


def pictures(side: int) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_every_layout_can_be_named_and_every_foundation_has_one() -> None:
    assert set(get_args(Network.model_fields["match"].annotation)) == set(LAYOUTS)
    assert set(FOUNDATIONS) == set(LAYOUTS) - {"name", "order"}


@pytest.mark.parametrize("size", WIDTHS)
def test_published_shapes_of_eva_x_are_those_of_its_body(size: str) -> None:
    with torch.device("meta"):
        body = build_body(f"eva-x-{size}")
    found = LAYOUTS["eva-x"](published_eva_x(size, device="meta"), body)
    assert {key: tuple(value.shape) for key, value in found.items()} == without_head(body)


def test_eva_x_is_the_network_and_the_pairing_of_its_authors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = published_eva_x("tiny")
    about = argparse.Namespace(input_size=224)
    torch.save({"model": state, "epoch": np.float64(899), "args": about}, tmp_path / "eva_x.pt")
    theirs = eva.Eva(
        img_size=224,
        patch_size=16,
        embed_dim=192,
        depth=12,
        num_heads=3,
        mlp_ratio=4 * 2 / 3,
        swiglu_mlp=True,
        use_rot_pos_emb=True,
        ref_feat_shape=(14, 14),
        num_classes=0,
    ).eval()
    theirs.load_state_dict(eva.checkpoint_filter_fn(state, theirs), strict=True)
    choice = Network(name="eva-x-tiny", weights="eva_x.pt", match="eva-x")
    network = build_chosen(choice, findings=2).eval()
    provenance = initialise(network.body, choice=choice, root=tmp_path)
    with torch.inference_mode():
        ours = network.body.forward_features(pictures(224))
        torch.testing.assert_close(ours, theirs.forward_features(pictures(224)))
    assert "images without labels of ChestX-ray14, CheXpert, MIMIC-CXR (eva_x.pt)" in provenance


def test_published_shapes_of_rad_dino_are_those_of_its_body() -> None:
    with torch.device("meta"):
        body = build_body("vit_base_patch14_dinov2")
        hub, original = published_dino(768, depth=12, grid=37)
    assert hub["embeddings.position_embeddings"].shape == (1, 1370, 768)
    for state in (hub, original):
        found = LAYOUTS["rad-dino"](state, body)
        assert {key: tuple(value.shape) for key, value in found.items()} == without_head(body)


def test_both_files_of_rad_dino_give_the_tensors_that_timm_reads() -> None:
    body: Any = timm.create_model("vit_base_patch14_dinov2", num_classes=0, **tiny())
    hub, original = published_dino()
    ours = [LAYOUTS["rad-dino"](state, body) for state in (hub, original)]
    oracle = vision_transformer.checkpoint_filter_fn(dict(original), body)
    for found in ours:
        assert set(found) == set(oracle)
        assert all(torch.equal(found[key], oracle[key]) for key in oracle)


def test_features_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is absent: pip install transformers to compare with it"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Dinov2Config(**sizes, image_size=56, patch_size=14)
    theirs = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        for one in theirs.parameters():
            one.normal_(std=0.3)
    theirs.save_pretrained(tmp_path)
    choice = Network(
        name="tiny",
        architecture=folder_of(tmp_path, **tiny()),
        weights="model.safetensors",
        match="rad-dino",
        size=56,
    )
    network = build_chosen(choice, findings=2).eval()
    initialise(network.body, choice=choice, root=tmp_path)
    with torch.inference_mode():
        ours = network.body.forward_features(pictures(56))
        expected = theirs(pixel_values=pictures(56)).last_hidden_state
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["missing", "surplus", "shape", "patch", "key"])
def test_a_file_that_is_not_whole_is_refused(change: str, tmp_path: Path) -> None:
    hub, _ = published_dino()
    if change == "missing":
        del hub["layernorm.weight"]
    elif change == "key":
        del hub["encoder.layer.1.attention.attention.key.weight"]
    elif change == "surplus":
        hub["encoder.layer.2.norm1.weight"] = torch.zeros(32)
    elif change == "shape":
        hub["layernorm.weight"] = torch.zeros(16)
    else:
        hub["embeddings.patch_embeddings.projection.weight"] = torch.zeros(32, 3, 16, 16)
    save_file({key: one.contiguous() for key, one in hub.items()}, tmp_path / "odd.safetensors")
    body = timm.create_model("vit_base_patch14_dinov2", num_classes=2, **tiny())
    choice = Network(name="tiny", weights="odd.safetensors", match="rad-dino")
    with pytest.raises(ValueError, match="not this network's weights"):
        initialise(body, choice=choice, root=tmp_path)


def test_position_embeddings_of_another_size_are_interpolated_by_timm_and_this_is_said(
    tmp_path: Path,
) -> None:
    hub, original = published_dino()
    save_file({key: one.contiguous() for key, one in hub.items()}, tmp_path / "w.safetensors")
    choice = Network(
        name="tiny",
        architecture=folder_of(tmp_path, **tiny()),
        weights="w.safetensors",
        match="rad-dino",
        size=84,
    )
    network = build_chosen(choice, findings=2)
    provenance = initialise(network.body, choice=choice, root=tmp_path)
    assert provenance.endswith("position embeddings interpolated from 4 x 4 to 6 x 6")
    oracle = timm.create_model("vit_base_patch14_dinov2", num_classes=0, **tiny(grid=6))
    expected = vision_transformer.checkpoint_filter_fn(dict(original), oracle)["pos_embed"]
    assert torch.equal(network.body.state_dict()["pos_embed"], expected)
    logit = network.eval()(torch.zeros(1, 70, 70, dtype=torch.uint8))
    assert logit.shape == (1, 2)


def test_scaling_and_size_come_from_the_layout_unless_they_are_stated() -> None:
    choice = Network(name="eva-x-tiny", weights="w", match="eva-x")
    published = build_chosen(choice, findings=1)
    assert published.size == 224
    torch.testing.assert_close(published.mean.flatten(), torch.tensor([0.49185243] * 3))
    torch.testing.assert_close(published.std.flatten(), torch.tensor([0.28509309] * 3))
    unit = ((0.0,) * 3, (1.0,) * 3)
    stated = choice.model_copy(update={"size": 64})
    other = build_chosen(stated, findings=1, mean_std=unit)
    assert (other.size, other.mean.sum(), other.std.sum()) == (64, 0, 3)
    with torch.device("meta"):
        dino = {"name": "r", "architecture": "vit_base_patch14_dinov2", "weights": "w"}
        rad = build_chosen(Network(**dino, match="rad-dino"), findings=1)
    assert rad.size == 518


def test_a_network_of_one_size_takes_films_of_any_and_this_is_said(capsys) -> None:
    choice = Network(name="vit", architecture="eva-x-tiny")
    network = build_chosen(choice, findings=1).eval()
    assert "vit sees films at its own size: 224 x 224 pixels" in capsys.readouterr().err
    for side in (64, 224):
        assert network(torch.zeros(1, side, side, dtype=torch.uint8)).shape == (1, 1)
    build_chosen(Network(name="test_resnet"), findings=1)
    assert not capsys.readouterr().err
    for patched in ("test_vit", "eva-x-tiny"):
        with pytest.raises(ValueError, match=r"patches of 16 pixels: .* such as 96"):
            build(patched, findings=1, size=100)
    with pytest.raises(ValueError, match="takes pictures of 224 pixels: set size = 0"):
        build("convit_tiny", findings=1, size=256)
    with torch.device("meta"):
        assert build("mixer_s32_224", findings=1).size == 224


def test_a_layout_needs_a_file_and_no_provenance() -> None:
    for weights in ("random", "timm"):
        with pytest.raises(ValueError, match="name that file in `weights`"):
            Network(name="eva-x-tiny", weights=weights, match="eva-x")
    assert not Network(name="eva-x-tiny", weights="w.pt", match="eva-x").provenance
    with pytest.raises(ValueError, match="need `provenance`"):
        Network(name="a", architecture="hf-hub:owner/name", weights="timm")


def test_a_folder_of_timm_is_a_network(tmp_path: Path) -> None:
    place = folder_of(tmp_path, **tiny())
    about = {"name": "tiny", "architecture": place, "provenance": "invented"}
    check_name(place)
    choice = Network(**about, weights="timm")
    fetch_weights(choice, root=tmp_path)
    network = build_chosen(choice, findings=2)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor([0.4] * 3))
    assert initialise(network.body, choice=choice, root=tmp_path) == f"timm {place}: invented"
    torch.manual_seed(0)
    first = timm.create_model("vit_base_patch14_dinov2", num_classes=0, **tiny()).state_dict()
    assert torch.equal(network.body.state_dict()["norm.bias"], first["norm.bias"])
    films = toy_films(2, size=32)
    assert embed(films, rows=np.arange(2), network=frozen_network(choice, root=tmp_path)).shape == (
        2,
        32,
    )
    (tmp_path / "tiny-dino" / ".git").mkdir()
    before = fingerprint_weights(choice, root=tmp_path)
    file = tmp_path / "tiny-dino" / "config.json"
    file.write_text(file.read_text() + " ", encoding="utf-8")
    assert fingerprint_weights(choice, root=tmp_path) != before
    (tmp_path / "tiny-dino" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="name the folder that holds it"):
        check_name(place)


def test_the_hub_without_a_connection_gives_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.models._factory.load_model_config_from_hf", offline)
    with pytest.raises(ValueError, match=r"'hf-hub:owner/name' cannot be built.*connect") as one:
        check_name("hf-hub:owner/name")
    assert "\n" not in str(one.value)


def test_weights_that_timm_publishes_for_eva_x_are_refused() -> None:
    with pytest.raises(ValueError, match="weights of eva-x-tiny could not be fetched"):
        fetch_weights(Network(name="eva-x-tiny", weights="timm"), root=Path())
