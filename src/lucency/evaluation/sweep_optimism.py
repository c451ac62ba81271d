"""The optimism of a sweep: the best of many trials on validation, and the same at fresh seeds.

The highest of n validation scores is partly luck, of the seed and of the validation films, so it
overstates what its choices are worth (Cawley and Talbot, JMLR 2010, 11:2079). Fresh seeds show the
part of the seed, test films the rest.
Letters in shapes: s seeds, r resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.core.predictions import Predictions
from lucency.evaluation import bootstrap
from lucency.evaluation.ablation_effects import SeedMeans, mean_over_seeds
from lucency.evaluation.metrics import by_finding
from lucency.evaluation.significance import LEVEL

BEST, FOUND, DEFAULT, GAIN = "best trial", "found", "as it stands", "difference"
COLUMNS = ("candidate", "part", "value", "low", "high", "p", "seeds")
Scores = tuple[Float64[np.ndarray, "s 1"], Float64[np.ndarray, "s 1 r"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResults:
    """What a sweep found.

    `trials` has a row a trial: trial, state (finished or pruned), a column a key with its value as
    JSON, epochs, minutes, val_auc (of a pruned one that of its last epoch), best (the highest of
    finished trials so far), reason. `optimism` is of `optimism_table`. `importance` has a row a key
    with its share in the variance of val_auc among finished trials, no row where they are too few.
    """

    trials: pd.DataFrame
    optimism: pd.DataFrame
    importance: pd.DataFrame
    conclusion: str

    @property
    def best(self) -> int:
        """The number of the best trial: the finished one with the highest val_auc."""
        finished = self.trials.loc[self.trials["state"] == "finished"]
        return int(finished["trial"].to_numpy()[finished["val_auc"].to_numpy().argmax()])


def optimism_table(
    best: float,
    *,
    found: Sequence[Predictions],
    default: Sequence[Predictions],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return macro AUC of the best trial, and of its choices and the protocol's at fresh seeds.

    `best` is the best trial's on validation films; `found` and `default` hold predictions of
    validation and test films, one a seed, the same seeds for both. Means over seeds have 95 %
    intervals over patients and seeds (`mean_over_seeds`), the difference is paired over both. With
    one seed there is no interval and no p (NaN).
    """
    rows: list[tuple[object, ...]] = [(BEST, "val", best, np.nan, np.nan, np.nan, 1)]
    for part in ("val", "test"):
        mine, other = (
            _scores([one.of(part) for one in several], resamples=resamples, seed=seed)
            for several in (found, default)
        )
        apart = (mine[0] - other[0], mine[1] - other[1])
        for name, scores in ((FOUND, mine), (DEFAULT, other), (GAIN, apart)):
            rows.append((name, part, *_described(mean_over_seeds(*scores), name), len(found)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def conclude_sweep(table: pd.DataFrame, *, trials: int) -> str:
    """Return what the search found, in sentences: its optimism first, then whether it was worth it.

    `table` is of `optimism_table`.
    """
    row = table.set_index(["candidate", "part"]).to_dict("index")
    best, fresh = row[(BEST, "val")], row[(FOUND, "val")]
    test, default, gain = (row[(name, "test")] for name in (FOUND, DEFAULT, GAIN))
    seeds = int(fresh["seeds"])
    how_many = f"{seeds} fresh seeds, on average" if seeds > 1 else "one fresh seed"
    return (
        f"The best of {trials} trials has macro AUC {best['value']:.3f} on validation films. Its "
        f"choices reach {_estimate(fresh)} there at {how_many}: the optimism of choosing the best "
        f"is {best['value'] - fresh['value']:+.3f}. On test films they reach {_estimate(test)}, "
        f"which is {test['value'] - best['value']:+.3f} from the best trial's; the protocol as it "
        f"stands reaches {_estimate(default)} at the same seeds. {_worth(gain)}"
    )


def _worth(gain: Mapping[Any, Any]) -> str:
    ends = "" if np.isnan(gain["low"]) else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
    difference = f"The search changes macro AUC on test films by {gain['value']:+.3f}{ends}"
    if np.isnan(gain["p"]):
        return f"{difference}: one seed does not show whether that is more than chance."
    if gain["p"] >= LEVEL:
        return f"{difference}: not significantly different (p {gain['p']:.2g})."
    word = "higher" if gain["value"] > 0 else "lower"
    return f"{difference}: significantly {word} (p {gain['p']:.2g})."


def _estimate(row: Mapping[Any, Any]) -> str:
    ends = "" if np.isnan(row["low"]) else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['value']:.3f}{ends}"


def _scores(several: Sequence[Predictions], *, resamples: int, seed: int) -> Scores:
    """Return macro AUC of every seed, plainly and of resampled patients."""
    draws = bootstrap.resample_patients(several[0].patient, resamples=resamples, seed=seed)
    plain, drawn = (
        [bootstrap.mean_over_findings(_by_finding(one, weights)) for one in several]
        for weights in (bootstrap.once(len(several[0])), draws)
    )
    return np.stack(plain), np.stack(drawn)[:, None]


def _by_finding(one: Predictions, weights: bootstrap.Weights) -> Float64[np.ndarray, "k r"]:
    return by_finding("auc", one.label, one.logit, weights=weights)


def _described(means: SeedMeans, name: str) -> tuple[float, ...]:
    ends = [float(one[0]) for one in (means.low, means.high)]
    least = -1 if name == GAIN else 0  # half an interval may reach where no AUC lies
    ends = [float(np.clip(one, least, 1)) for one in ends]
    return (float(means.value[0]), *ends, float(means.p[0]) if name == GAIN else np.nan)
