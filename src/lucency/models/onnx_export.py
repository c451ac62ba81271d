"""A network as one ONNX file: films in, logits, pooled features and the last maps out.

What comes before the body (colours, scaling, resizing) is inside, so that any runtime takes films
as they are prepared. Letters in shapes: b and n films, k findings, d feature dimensions, c
channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx import OnnxExporterError

from lucency.core.files import write_whole
from lucency.core.memory import check_room
from lucency.models.heads import channels_first
from lucency.models.metadata import FEATURES_ONLY
from lucency.models.networks import FilmNetwork
from lucency.models.onnx_runtime import (
    BATCH,
    FEATURE,
    FILMS,
    LOGIT,
    MAP,
    TOLERANCE,
    OnnxNetwork,
    run,
)

OPSET = 18


class ExportedNetwork(nn.Module):
    """What is exported of a network, for films of `size` x `size` pixels.

    The resize of `FilmNetwork.pictures` is linear and works on rows and columns alike: it is a
    constant matrix, on both sides of the picture, made by resizing the identity. So written it
    needs no operator of its own.
    """

    resize: Tensor | None

    def __init__(self, network: FilmNetwork, *, size: int) -> None:
        super().__init__()
        side, unsized = network.size or size, copy.copy(network)
        unsized.size = 0
        self.network = unsized
        self.register_buffer("resize", None if side == size else resizing_matrix(size, side))

    def forward(self, films: UInt8[Tensor, "b h w"]) -> tuple[Tensor, ...]:
        """Return logits (b k), pooled features (b d) and, where they are maps, b c gh gw."""
        pictures = self.network.pictures(films)
        if self.resize is not None:
            pictures = self.resize @ pictures @ self.resize.T
        maps, body = self.network.features(pictures), self.network.body
        logit, feature = body.forward_head(maps), body.forward_head(maps, pre_logits=True)
        is_map = isinstance(maps, Tensor) and maps.ndim == 4
        return (logit, feature, channels_first(body, maps)) if is_map else (logit, feature)


def write_onnx(network: FilmNetwork, file: Path, *, size: int, metadata: Mapping[str, str]) -> None:
    """Write the network, in evaluation mode and float32, as an ONNX file of its own, whole.

    Its input `films` is uint8 [batch, size, size], any number of films; its outputs are `logit`
    [batch, k], `feature` [batch, d] as `FilmNetwork.embed` gives them, and `map` [batch, c, gh, gw]
    where the last features are maps. `metadata` stands in the file's metadata. The network stays as
    it is. Raises ValueError for a network that cannot be exported.
    """
    check_room()
    exported = ExportedNetwork(copy.deepcopy(network).cpu().float(), size=size).eval()
    films = torch.zeros(2, size, size, dtype=torch.uint8)  # not one, which would be a constant
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries about each other
        made = len(exported(films))
        try:
            program: Any = torch.onnx.export(
                exported,
                (films,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[FILMS],
                output_names=[LOGIT, FEATURE, MAP][:made],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise ValueError(
                f"{type(network.body).__name__} cannot be exported to ONNX ({reason}): expected a "
                "network of the house, or one whose operators ONNX has; use it with torch"
            ) from error
    write_whole(file, _serialised(program.model, metadata))


class Differences(NamedTuple):
    """The largest absolute difference of logits, and that of features in shares of their range."""

    logit: float
    feature: float


def largest_differences(
    network: FilmNetwork, exported: OnnxNetwork, *, pixels: UInt8[np.ndarray, "n h w"]
) -> Differences:
    """Return how far logits and pooled features of a network and its ONNX file differ at most.

    The films are predicted in evaluation mode, where the network is; it stays as it is. The range
    of features is that of all films and dimensions together.
    """
    was_training, device = network.training, network.mean.device
    network.eval()
    try:
        with torch.inference_mode():
            parts = torch.from_numpy(np.array(pixels)).split(BATCH)
            made = [network.embed(part.to(device)) for part in parts]
    finally:
        network.train(was_training)
    feature, logit = (torch.cat(one).float().cpu().numpy() for one in zip(*made, strict=True))
    found = run(exported, pixels)
    apart = [
        float(np.abs(own - other).max(initial=0.0))
        for own, other in zip((logit, feature), found, strict=True)
    ]
    extent = float(np.ptp(feature)) if feature.size else 0.0
    return Differences(apart[0], apart[1] / (extent or 1.0))


def too_far(apart: Differences, *, findings: Sequence[str]) -> str:
    """Return in words what differs by more than TOLERANCE; "" where the export is good.

    Logits of a network for features alone mean nothing, and may differ.
    """
    parts = [("features", apart.feature, " of their range")]
    if FEATURES_ONLY not in findings:
        parts.insert(0, ("logits", apart.logit, ""))
    return ", ".join(
        f"{what} differ from torch's by up to {largest:.2g}{unit}"
        for what, largest, unit in parts
        if not largest <= TOLERANCE
    )


def resizing_matrix(size: int, side: int) -> Float32[Tensor, "side size"]:
    """Return the matrix that resizes a row of `size` pixels to `side`, bilinear, antialiased."""
    identity = torch.eye(size)[None, None]
    return functional.interpolate(identity, (side, size), mode="bilinear", antialias=True)[0, 0]


def _serialised(model: ir.Model, metadata: Mapping[str, str]) -> bytes:
    """Return the file's content: the network and `metadata`, without the exporter's own notes.

    Those name the places of source files on the machine that exports.
    """
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    return ir.to_proto(model).SerializeToString()
