"""What the reference study published, and the table that puts it beside what is found here.

"Research on Chest X-Rays" (2025), notebooks at github.com/rahulogoel/Research-on-Chest-X-rays.
Films were dropped and copied before a random split by film, so its test films are balanced, and
copies of one film and films of one patient stand on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lucency.judge.half import HALF_METRICS, at_half
from lucency.predictions import Predictions

SOURCE = "Research on Chest X-Rays (2025), its notebooks"
TEST_FILMS = 7_708  # of 51,382 entries after balancing, copies among them
NOTHING = 0.90095  # accuracy there of whoever calls no finding positive
NONE = np.nan  # its F1 is of the finding with the highest probability, which is no F1 of ours
PUBLISHED = (  # network as protocols name it, what it was, and HALF_METRICS
    ("densenet121", "lr 1e-4, batch 64, 20 epochs", .8421, .9109, .5519, .5147, NONE, .3046),
    ("densenet121-fast", "lr 1e-3, batch 64, 50 epochs", .7786, .8913, .4520, .4825, NONE, .5768),
    ("densenet121-long", "lr 1e-4, batch 64, 50 epochs", .8207, .9108, .5510, .5154, NONE, .4023),
    ("mobilenetv2", "all layers, lr 1e-4, batch 64, 20 epochs", .7691, .8920, .4341, .3522, NONE,
     .3779),
    ("mobilenetv2-frozen", "frozen, lr 1e-3, batch 64, 50 epochs", .7940, .9066, .6224, .2011,
     NONE, .2701),
    ("alexnet-reference", "lr 1e-4, batch 128, 20 epochs, split 60:20:20", NONE, .8865, .2968,
     .0813, NONE, .3582),
)  # fmt: skip
BESIDE = (
    "network", "metric", "published", "claimed", "claimed_low", "claimed_high", "reached",
    "reached_low", "reached_high", "as_published",
)  # fmt: skip
UNKNOWN = (np.nan,) * 3
UNPUBLISHED = "no notebook of it was published"
NO_ROW = (UNPUBLISHED, *[np.nan] * len(HALF_METRICS))


def beside_study(
    claimed: Sequence[Predictions], reached: Sequence[Predictions], *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return a row a network and metric: published, claimed on the own test films, and reached.

    Everything is pooled over findings and decided at .5, as `at_half` does and Keras did. `reached`
    are the same networks on patients set apart, none where there are none. What was not published,
    or not tried, is NaN.
    """
    apart = {one.network: one for one in reached}
    rows = []
    for one in claimed:
        about, *scores = next((row[1:] for row in PUBLISHED if row[0] == one.network), NO_ROW)
        both = [
            at_half(side, resamples=resamples, seed=seed).set_index("metric")
            for side in (one, *([apart[one.network]] if apart else []))
        ]
        for metric, score in zip(HALF_METRICS, scores, strict=True):
            found = [side.loc[metric, ["value", "low", "high"]].tolist() for side in both]
            claim, reach = (*found, UNKNOWN)[:2]
            rows.append((one.network, metric, score, *claim, *reach, about))
    return pd.DataFrame(rows, columns=list(BESIDE))
