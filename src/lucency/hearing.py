"""Anybody's predictions heard: the tables of the page, made from test films alone, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.choices import DRAWS
from lucency.judge.claims import claim_of
from lucency.judge.complaints import Roll, complaint_table, ranked
from lucency.judge.evaluate import confusion_table
from lucency.judge.published import community_lists
from lucency.judge.ranking import conclude, rank
from lucency.judge.reliability import brier_parts, reliability_table
from lucency.judge.subgroups import subgroups, worst_group
from lucency.judge.suspicion import CHECKS, suspect
from lucency.predictions import Predictions
from lucency.values import Manifest


def write_hearing(
    several: Sequence[Predictions],
    *,
    metrics: pd.DataFrame,
    comparison: pd.DataFrame,
    thresholds: pd.DataFrame,
    films: Manifest,
    out: Path,
) -> None:
    """Write report.html into `out`: all that can be said of predictions of the same test films.

    `metrics` as judge.evaluate gives them, `comparison` as judge.compare and `thresholds` as
    threshold_table, of all networks; `films` are those of the label file, with its facts.
    """
    from lucency.show.judged import Judged, write_judged

    ranking = rank(metrics, comparison)
    best = next(one for one in several if one.network == ranking["network"].iloc[0])
    groups = subgroups(best, facts=films.facts.set_axis(films.image), **DRAWS)
    first = several[0]
    known = community_lists(Roll(image=first.image, patient=first.patient, part=first.part))
    complaints = [*known, *(one for said in several for one in suspect(claim_of(said)))]
    fitted = bool(thresholds["positives"].to_numpy().any())
    write_judged(
        Judged(
            title=", ".join(one.network for one in several),
            seen=_seen(several[0], films),
            predictions=several,
            metrics=metrics,
            confusion=pd.concat(
                [_confusion(one, thresholds) for one in several], ignore_index=True
            ),
            comparison=comparison,
            ranking=ranking,
            conclusion=conclude(ranking),
            thresholds=thresholds,
            threshold_origin="fitted on validation films" if fitted else "not fitted, .5 for all",
            reliability=pd.concat(
                [reliability_table(one, **DRAWS) for one in several], ignore_index=True
            ),
            brier=pd.concat([brier_parts(one) for one in several], ignore_index=True),
            subgroups=groups,
            worst_group=worst_group(groups),
            complaints=complaint_table(ranked(list(dict.fromkeys(complaints)))),
            checks=len(CHECKS) + 1,
        ),
        file=out / "report.html",
    )


def _confusion(said: Predictions, thresholds: pd.DataFrame) -> pd.DataFrame:
    """Return the counts of one network at its own thresholds."""
    fitted = thresholds.loc[thresholds["network"] == said.network].set_index("finding")["threshold"]
    threshold = fitted.loc[list(said.findings)].to_numpy(dtype=np.float64)
    return confusion_table(said, threshold=threshold)


def _seen(said: Predictions, films: Manifest) -> str:
    """Return which films and labels these are, in a sentence."""
    patients = len(np.unique(said.patient))
    return f"{len(said):,} films of {patients:,} patients, labelled by {films.origin}"
