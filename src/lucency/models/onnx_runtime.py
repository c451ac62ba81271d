"""Inference by ONNX Runtime: a network's file opened and run, without torch.

Letters in shapes: n films, k findings, d feature dimensions, c channels, h and w pixels, gh and gw
cells of the grid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from lucency.core.memory import says_out_of_memory, thread_pool
from lucency.core.parallel import keep_freed_memory, usable_cores
from lucency.core.saved_files import fingerprint_content

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FILMS, LOGIT, FEATURE, MAP = "films", "logit", "feature", "map"
SUM = ".onnx.sum"  # the end of a file with the fingerprint of an ONNX file, where there is one
TOLERANCE = 1e-4  # of logits, between torch and ONNX
BATCH = 8  # films at once
CHUNK = 4  # films that one core takes at once: docs/performance.md
ERRORS_ONLY = 3  # of what ONNX Runtime writes to the terminal
EXPECTED = "expected the whole file that `lucency export` wrote: export anew"
REFUSALS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented")


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxNetwork:
    """An opened ONNX file, as `lucency.models.onnx_export` writes it, and its metadata.

    It takes films of `size` x `size` pixels, on so many `threads`. `channels` is the number of its
    last maps, 0 where its last features are no maps.
    """

    session: InferenceSession
    metadata: Mapping[str, str]
    size: int
    findings: int
    channels: int
    threads: int

    def __repr__(self) -> str:
        return f"<OnnxNetwork: {self.findings} findings, films of {self.size} x {self.size} pixels>"


def open_onnx(file: Path, *, threads: int = 0) -> OnnxNetwork:
    """Open a network's ONNX file on the CPU, with so many threads; 0: a thread a core.

    Each thread takes films of its own. Raises ValueError for a file that is absent or damaged, that
    is no network of films, or that keeps its weights in other files, which are never read.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): {EXPECTED}") from error
    known = file.with_suffix(SUM)
    if known.is_file() and known.read_bytes() != fingerprint_content(content).encode():
        raise ValueError(f"{file} is damaged, by its fingerprint in {known.name}: {EXPECTED}")
    session, metadata, shape = _session(content, file=file, options=_options())
    match (shape.get(FILMS), shape.get(LOGIT), shape.get(FEATURE), shape.get(MAP, (0, 0, 0))):
        case (
            ("tensor(uint8)", str(), int(size), int(side)),
            (_, str(), int(findings)),
            (_, str(), int()),
            (_, _, int(channels), *_),
        ) if size == side:
            return OnnxNetwork(
                session=session,
                metadata=metadata,
                size=size,
                findings=findings,
                channels=channels,
                threads=threads or usable_cores(),
            )
    found = ", ".join(f"{name} {shape[name]}" for name in shape)
    raise ValueError(f"{file} is no network of films (it has {found}): {EXPECTED}")


def run(
    network: OnnxNetwork, pixels: UInt8[np.ndarray, "n h w"]
) -> tuple[Float32[np.ndarray, "n k"], Float32[np.ndarray, "n d"]]:
    """Return logits and pooled features of prepared films, side by side.

    Raises ValueError for films of another size.
    """
    logit, feature = _outputs(network, pixels, (LOGIT, FEATURE))
    return logit, feature


def maps(
    network: OnnxNetwork, pixels: UInt8[np.ndarray, "n h w"]
) -> Float32[np.ndarray, "n c gh gw"]:
    """Return the last maps of prepared films, before they are pooled, side by side.

    Raises ValueError where the last features are no maps, and for films of another size.
    """
    if not network.channels:
        raise ValueError(
            "the network's last features are no maps: expected a network of convolutions; "
            "integrated-gradients and smooth-grad explain this one, with torch"
        )
    return _outputs(network, pixels, (MAP,))[0]


def _session(
    content: bytes, *, file: Path, options: Any
) -> tuple[InferenceSession, Mapping[str, str], dict[str, tuple[Any, ...]]]:
    """Return the session of a file's content, its metadata, and type and shape of its ends."""
    import onnxruntime

    errors = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    keep_freed_memory()
    refusals = (ValueError, *(getattr(errors, name) for name in REFUSALS))
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        metadata, ends = session.get_modelmeta().custom_metadata_map, session.get_inputs()
        shape = {end.name: (end.type, *end.shape) for end in (*ends, *session.get_outputs())}
    except refusals as error:
        if says_out_of_memory(error):
            raise
        reason = " ".join(str(error).rpartition(" : ")[2].split())
        raise ValueError(f"{file} cannot be opened ({reason}): {EXPECTED}") from error
    return session, metadata, shape


def _options() -> Any:
    """Return onnxruntime's SessionOptions: one thread, since films are what is done in parallel."""
    options = import_module("onnxruntime").SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = 1
    nowhere = f"{os.devnull}/none"  # else weights may come from files of the current folder
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, nowhere)
    return options


def _outputs(
    network: OnnxNetwork, pixels: UInt8[np.ndarray, "n h w"], names: tuple[str, ...]
) -> list[Any]:
    """Return the named outputs for all films; those of no film too."""
    if pixels.shape[1:] != (network.size, network.size):
        raise ValueError(
            f"films have {pixels.shape[1]} x {pixels.shape[2]} pixels, expected {network.size} x "
            f"{network.size}: prepare them as the network's own were"
        )
    step = max(1, min(CHUNK, -(-len(pixels) // network.threads)))
    starts = range(0, max(1, len(pixels)), step)

    def outputs(start: int) -> Any:
        films = np.ascontiguousarray(pixels[start : start + step])
        return network.session.run(names, {FILMS: films})

    if len(starts) == 1:
        return outputs(0)
    made = _threads(network.threads).map(outputs, starts)
    return [np.concatenate(parts) for parts in zip(*made, strict=True)]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Return threads, which stay from one call to the next."""
    return thread_pool(count, name="onnx")
