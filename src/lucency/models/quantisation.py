"""A network in integers of 8 bits: calibrated on films, measured against itself, without torch.

Letters in shapes: n films, m of them, h and w pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from lucency.core.files import write_whole
from lucency.core.film_shards import FilmShards
from lucency.core.predictions import Predictions
from lucency.core.progress import Advance, silent
from lucency.evaluation.compare import Tested, compare, macro_auc_rows
from lucency.models.onnx_runtime import BATCH, FILMS, OnnxNetwork, open_onnx, run

QUANTISED = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul",
    "MaxPool", "Relu",
)  # fmt: skip
ROUNDS = 7  # of both networks in turn
BLOCK = 64  # films that are read at once to measure the cost
Pixels = UInt8[np.ndarray, "n h w"]


class Rates(NamedTuple):
    """Films a second, before and after: medians of rounds in which both took turns."""

    plain: float
    quantised: float


def quantise(file: Path, *, calibration: Pixels, out: Path) -> Rates:
    """Write the network of an ONNX file to `out`, in integers of 8 bits, and return what it gains.

    Static quantisation: scales are those of the smallest and largest values on the `calibration`
    films, of weights channel by channel (Jacob et al., CVPR 2018; ONNX Runtime's `quantize_static`
    in its QDQ form). Metadata stay. Raises ValueError, and writes nothing, without films, for a
    file that cannot be opened, and where the network would not be faster on this machine.
    """
    if not len(calibration):
        raise ValueError("calibration: found no film, expected some of the validation films")
    plain = open_onnx(file)
    with TemporaryDirectory() as scratch:
        made = Path(scratch) / "quantised.onnx"
        _quantise(file, calibration, made)
        rates = _rates(plain, open_onnx(made), calibration[:BATCH])
        if rates.quantised <= rates.plain:
            raise ValueError(
                f"in 8 bits the network is slower here: {rates.quantised:.1f} films a second, "
                f"{rates.plain:.1f} as it is: keep it as it is"
            )
        write_whole(out, made.read_bytes())
    return rates


def quantisation_cost(
    predictions: Predictions,
    *,
    quantised: OnnxNetwork,
    pixels: Pixels | FilmShards,
    row: Int64[np.ndarray, " m"],
    draws: Mapping[str, int],
    progress: Advance = silent,
) -> Tested:
    """Return the macro AUC of the quantised network less that of `predictions`, paired.

    `predictions` are the network's own of labelled films, which lie at the rows `row` of `pixels`
    and are read BLOCK at once; for an honest answer it was not calibrated on them. Interval and p
    are those of `lucency.evaluation.compare.compare`, whose `resamples` and `seed` are `draws`.
    """
    logit = np.empty_like(predictions.logit)
    for start in range(0, len(row), BLOCK):
        some = slice(start, start + BLOCK)
        logit[some] = run(quantised, pixels[row[some]])[0]
        progress(min(start + BLOCK, len(row)), len(row))
    name, feature = f"{predictions.network} int8", predictions.feature[:, :0]
    other = replace(predictions, network=name, logit=logit, feature=feature)
    table = macro_auc_rows(compare([other, predictions], **draws)).iloc[0]
    return Tested(*(table[name] for name in Tested._fields))


def _quantise(file: Path, calibration: Pixels, out: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    reader: Any = _Reader(films=iter(np.split(calibration, len(calibration))))
    fused = out.with_name("fused.onnx")
    quant_pre_process(str(file), str(fused), skip_symbolic_shape=True)
    quantize_static(
        str(fused),
        str(out),
        reader,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    before, after = onnx.load(file), onnx.load(out)
    del after.metadata_props[:]
    after.metadata_props.extend(before.metadata_props)
    onnx.save(after, out)


@dataclass(kw_only=True)
class _Reader:
    """Films one by one, as ONNX Runtime's calibration takes them; None after the last."""

    films: Iterator[Pixels]

    def get_next(self) -> dict[str, Pixels] | None:
        """Return the next film."""
        film = next(self.films, None)
        return None if film is None else {FILMS: film}


def _rates(plain: OnnxNetwork, quantised: OnnxNetwork, pixels: Pixels) -> Rates:
    """Return the median rates of ROUNDS after a first one that does not count."""
    seconds: list[list[float]] = [[], []]
    for _ in range(1 + ROUNDS):
        for network, spent in zip((plain, quantised), seconds, strict=True):
            started = time.perf_counter()
            run(network, pixels)
            spent.append(time.perf_counter() - started)
    return Rates(*(len(pixels) / float(np.median(spent[1:])) for spent in seconds))
