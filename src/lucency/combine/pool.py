"""Several networks become one by any method: fitted on validation films, said of both parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from lucency.combine.ensemble import ENSEMBLES, Blend, blended, fit_blend
from lucency.combine.stack import STACKED, stack
from lucency.predictions import Predictions, concatenate

EQUAL = "mean-probability"  # what other ensembles must beat
METHODS = (*ENSEMBLES, STACKED)


class Pooled(NamedTuple):
    """What an ensemble says of validation and test films, and its weights.

    `weights`: method, network, finding, weight; no row where it has none.
    """

    said: Predictions
    weights: pd.DataFrame


def pool(several: Sequence[Predictions], *, method: str, seed: int) -> Pooled:
    """Return an ensemble of networks by one of METHODS; each holds validation and test films.

    Raises ValueError as `fit_blend` does.
    """
    known, asked = ([one.of(part) for one in several] for part in ("val", "test"))
    if method == STACKED:
        return Pooled(concatenate(stack(known, asked)), _rows([]))
    blend = fit_blend(known, method=method, seed=seed)
    said = [blended(side, blend, validation=known) for side in (known, asked)]
    return Pooled(concatenate(said), _weights(blend, several[0].findings))


def _weights(blend: Blend, findings: tuple[str, ...]) -> pd.DataFrame:
    each = zip(blend.members, blend.weight.tolist(), strict=True)
    pairs = [(member, zip(findings, row, strict=True)) for member, row in each]
    return _rows([(blend.method, member, *cell) for member, cells in pairs for cell in cells])


def _rows(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["method", "network", "finding", "weight"])
