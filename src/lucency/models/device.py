"""Where networks compute: the device, its precision, and a CPU's memory and layout.

accelerate is imported where it is needed: inference on a CPU in one process does without it.
"""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lucency.config.sections import Training
from lucency.core.parallel import keep_freed_memory, set_ranks, world_size

if TYPE_CHECKING:
    from accelerate import Accelerator


def join() -> None:
    """Meet the other processes that a launcher has started; ranks are accelerate's from here on.

    Raises ValueError when accelerate finds another number of them than the environment states.
    """
    from accelerate import PartialState

    state = PartialState(cpu=_only_cpu(), **_meeting_place())
    if world_size() > 1:
        _check_number(state.num_processes)
    set_ranks(
        rank=state.process_index,
        local_rank=state.local_process_index,
        world_size=state.num_processes,
    )


def _meeting_place() -> dict[str, Any]:
    """Return where processes meet that torchrun has started again on one machine.

    Its store still has the addresses of those that died, which the new ones might take for theirs.
    Of several machines each counts its own restarts, so that these cannot name a place.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if not restarts or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, several = next(rendezvous("env://"))
    return {"store": PrefixStore(f"start {restarts}", store), "rank": rank, "world_size": several}


def accelerator_for(training: Training) -> Accelerator:
    """Return the accelerator of this process: CPU, CUDA, MPS or XLA, one process or several.

    Raises ValueError when accelerate would have it work with processes that nobody has started.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    keep_freed_memory()
    thaws = training.frozen_epochs > 0 or training.unfreeze_epochs > 0
    partly = DistributedDataParallelKwargs(find_unused_parameters=thaws)
    precision = _PRECISIONS[training.precision]
    if training.precision == "auto" and torch.cuda.is_available():
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    made = Accelerator(mixed_precision=precision, kwargs_handlers=[partly], cpu=_only_cpu())
    _check_number(made.num_processes)
    return made


def device_here() -> torch.device:
    """Return the device of this process, whatever its precision."""
    keep_freed_memory()
    if world_size() == 1 and _only_cpu():
        return torch.device("cpu")
    from accelerate import PartialState

    device = PartialState(cpu=_only_cpu()).device
    assert device is not None, "a process has a device"
    return device


def _only_cpu() -> bool:
    """Return whether there is nothing but a CPU; accelerate must know it to join CPU processes.

    Raises ValueError when the environment wants a TPU and nothing here can drive one.
    """
    if "PJRT_DEVICE" not in os.environ and find_spec("torch_xla") is None:
        return not torch.accelerator.is_available()
    from accelerate.utils import is_torch_xla_available, parse_flag_from_env

    xla = is_torch_xla_available()
    wanted = os.environ.get("PJRT_DEVICE") == "TPU" and parse_flag_from_env("USE_TORCH_XLA", True)
    if wanted and not xla:
        raise ValueError(
            "PJRT_DEVICE is TPU, but torch_xla is not there: expected the release made for this "
            "torch (pip install 'lucency[tpu]'), or USE_TORCH_XLA=0 to do without the TPU"
        )
    return not (torch.accelerator.is_available() or xla)


def _check_number(found: int) -> None:
    if found != world_size():
        raise ValueError(
            f"accelerate finds {found} processes, but {world_size()} were started: start them with "
            "accelerate launch or torchrun, or let a launcher call lucency.main"
        )


def place(network: nn.Module) -> torch.device:
    """Move a network to this process's device, in the faster layout, and return the device."""
    device = device_here()
    laid_out(network.to(device))
    return device


def laid_out(network: nn.Module) -> nn.Module:
    """Return the network with channels last in memory, the faster layout for convolutions."""
    return network.to(memory_format=torch.channels_last)


def name_of(device: torch.device) -> str:
    """Return what a report may call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({os.cpu_count()} cores, {platform.machine()})"


_PRECISIONS = {"auto": "no", "float32": "no", "bfloat16": "bf16", "float16": "fp16"}
