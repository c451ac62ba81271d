"""Subgroups: AUC and calibration by view, sex, age, visit and number of films of the patient.

Letters in shapes: n films, k findings, r resamples (the first column: all films), c columns (the
findings, then macro).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from scipy.special import ndtr, ndtri

from lucency.core.manifest import OLDEST, SOURCE, mean_over
from lucency.core.plan import COPY_MARK
from lucency.core.predictions import Predictions
from lucency.evaluation import bootstrap
from lucency.evaluation.bootstrap import MACRO, Weights, mean_over_findings, ratio
from lucency.evaluation.evaluate import require_one_part
from lucency.evaluation.metrics import Label, Values, by_finding, not_computable
from lucency.evaluation.significance import LEVEL, holm

FEW_FILMS, FEW_PATIENTS = 30, 20  # of either class, and of both, below which numbers say little
SMALLEST_SHOWN = 0.001  # p value
UNKNOWN = "unknown"
COLUMNS = (
    "network", "fact", "group", "finding", "films", "positives", "patients", "auc", "auc_low",
    "auc_high", "gap", "gap_low", "gap_high", "calibration_gap", "calibration_low",
    "calibration_high", "small", "note",
)  # fmt: skip
Row = tuple[object, ...]
Rows = Bool[np.ndarray, " n"]
Sampled = Float64[np.ndarray, "k r"]


def subgroups(
    predictions: Predictions, *, facts: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Return each group's AUC, its gap to all other films, and its calibration gap, a finding each.

    All are of the recalibrated scores, as the metrics are. `facts` has a row for every film, named
    by its index or its column `image`. `gap` is the AUC in the group minus that of all other films;
    `calibration_gap` the mean probability minus the share of positives. The 95 % intervals resample
    patients, the same for a group and the others. `small` says that the group or the others have
    fewer than 30 positives, 30 negatives or 20 patients, too few for an interval.
    Macro is the mean over findings that are not small; where these are fewer than half, over all
    that are computable, and it is small itself. A fact that the table lacks is one row, whose note
    says so. A gap may come from other illnesses and other films in the group, not only from the
    network. Raises ValueError when the predictions hold several parts, or a film has no facts.
    """
    require_one_part(predictions)
    known = _joined(facts, predictions)
    weights = bootstrap.all_and_resampled(predictions.patient, resamples=resamples, seed=seed)
    rows: list[Row] = []
    for name, (column, edges, bands) in FACTS.items():
        if column not in known and column == SOURCE:
            continue  # of films of one source
        if column not in known:
            note = f"skipped: the facts have no column {column!r}"
            none = [0, 0, 0, *[np.nan] * 9, True]
            rows.append((predictions.network, name, "", MACRO, *none, note))
            continue
        for group, inside in groups_of(pd.Series(known[column]), edges, bands):
            rows += _rows(predictions, inside, weights=weights, place=(name, group))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def worst_group(table: pd.DataFrame) -> str:
    """Return which group's macro AUC is furthest below that of all other films, or that none is.

    A group that is small is not named, nor one whose gap may be chance: p, of the normal
    distribution of the gap with the spread that its interval has, is corrected (Holm 1979) for all
    groups that are not small, so that where none differs one is named in at most 5 %.
    """
    large = ~table["small"].astype(bool) & table["gap"].notna()
    macro = table.loc[large & (table["finding"] == MACRO)]
    if not len(macro):
        return "Groups with enough films, beside enough other films: 0. No macro AUC is compared."
    spread = (macro["gap_high"] - macro["gap_low"]) / (2 * ndtri(bootstrap.HIGH))
    p = 2 * ndtr(-macro["gap"].abs() / spread.where(spread > 0))
    macro = macro.assign(p_holm=holm(p.to_numpy(dtype=np.float64)))
    below = macro.loc[(macro["gap"] < 0) & (macro["p_holm"] < LEVEL)]
    corrected = f", Holm-corrected over {len(macro)} groups" if len(macro) > 1 else ""
    if not len(below):
        return (
            "Groups with a macro AUC significantly below that of all other films: 0 of "
            f"{len(macro)} with enough films (level .05{corrected})."
        )
    worst = below.loc[below["gap"].idxmin()]
    chance = f"{worst['p_holm']:.3f}" if worst["p_holm"] >= SMALLEST_SHOWN else "below 0.001"
    return (
        f"Largest gap of {worst['network']}: macro AUC {worst['auc']:.3f} in the group "
        f"{worst['fact']} = {worst['group']}, {-worst['gap']:.3f} below that of all other films "
        f"(95 % interval "
        f"{-worst['gap_high']:.3f} to {-worst['gap_low']:.3f}; p {chance}"
        f"{corrected}). Groups with enough films: {len(macro)}."
    )


def _joined(facts: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return the facts of each predicted film, and how many films of its patient are predicted."""
    table = facts.set_index("image") if "image" in facts else facts
    names = pd.Index(table.index.astype(str))
    if names.has_duplicates:
        again = names[names.duplicated()][0]
        raise ValueError(f"facts name film {again!r} more than once; expected one row a film")
    film = [
        str(name).partition(COPY_MARK)[0] for name in predictions.image
    ]  # of a copy, its source
    place = names.get_indexer(pd.Index(film))
    if len(lost := predictions.image[place < 0]):
        raise ValueError(
            f"{len(lost):,} of {len(place):,} films are not among the facts, such as "
            f"{str(lost[0])!r}; expected a row for each, by index or by a column 'image'"
        )
    _, owner, films = np.unique(predictions.patient, return_inverse=True, return_counts=True)
    return table.iloc[place].reset_index(drop=True).assign(**{_COUNT: films[owner]})


def groups_of(
    column: pd.Series, edges: Sequence[float], bands: Sequence[str]
) -> Iterator[tuple[str, Rows]]:
    """Yield each group that has films, in the order of its bands, those of no band last."""
    if edges:
        number = column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        name = np.array([*bands, UNKNOWN, UNKNOWN])[np.digitize(number, edges) - 1]
    else:
        name = column.astype("string").fillna("").str.strip().replace("", UNKNOWN).to_numpy(str)
        bands = [str(one) for one in np.unique(name) if one != UNKNOWN]
    for group in (*bands, UNKNOWN):
        if (inside := name == group).any():
            yield group, inside


def _rows(
    predictions: Predictions, inside: Rows, *, weights: Weights, place: tuple[str, str]
) -> list[Row]:
    """Return the rows of a group, of every finding and of macro."""
    (films, positives, patients, few), others = (
        _counts(predictions, rows) for rows in (inside, ~inside)
    )
    score = predictions.calibrated
    area, elsewhere = (
        by_finding("auc", predictions.label[rows], score[rows], weights=part)
        for rows, part in ((inside, weights.take(inside)), (~inside, weights.take(~inside)))
    )
    gap = area - elsewhere
    small = few | (others[-1] & ~np.isnan(gap[:, 0]))
    enough = bool(small.mean() <= 0.5)
    over = ~small if enough else ~np.isnan(area[:, 0])
    triples = zip(predictions.label.T, area, gap, strict=True)
    notes = [_note(label, inside, a, g) for label, a, g in triples]
    notes.append(_macro_note(predictions.findings, gap, over))
    values = [area, gap, _calibration(predictions, inside, weights)]
    values = [np.concatenate([v, mean_over_findings(v[over])[None]]) for v in values]
    names, small = (*predictions.findings, MACRO), np.append(small, not enough)
    unsure = [np.isnan(v[:, :1]) | small[:, None] for v in values]
    bounds = [
        bootstrap.interval(np.where(none, np.nan, v[:, 1:]))
        for v, none in zip(values, unsure, strict=True)
    ]
    numbers = [one for v, ends in zip(values, bounds, strict=True) for one in (v[:, 0], *ends)]
    rows = zip(names, films, positives, patients, *numbers, small, notes, strict=True)
    return [(predictions.network, *place, *row) for row in rows]


def _counts(predictions: Predictions, rows: Rows) -> tuple[np.ndarray, ...]:
    """Return films with a label, positives and patients of each column, and what is too few."""
    label, patient = predictions.label[rows], predictions.patient[rows]
    stated = ~np.isnan(label)
    whose = [*stated.T, stated.any(axis=1)]
    patients = np.array([len(np.unique(patient[films])) for films in whose])
    films = np.array([films.sum() for films in whose])
    positives = (label == 1).sum(axis=0)
    fewest = np.minimum(positives, (label == 0).sum(axis=0))
    small = (fewest < FEW_FILMS) | (patients[:-1] < FEW_PATIENTS)
    return films, np.append(positives, positives.sum()), patients, small


def _calibration(predictions: Predictions, rows: Rows, weights: Weights) -> Sampled:
    """Return by how much mean probability is above the share of positives."""
    part, label = weights.take(rows), predictions.label[rows].T
    stated = ~np.isnan(label)
    missed = part.total(np.where(stated, predictions.probability[rows].T - label, 0))
    return ratio(missed, part.total(stated.astype(np.float64)))


def _note(label: Label, inside: Rows, area: Values, gap: Values) -> str:
    """Return why a finding has no AUC, or no gap, and how many resamples lack one."""
    here, there = (
        not_computable("auc", label=one, decision=one == 1)
        for one in (label[inside], label[~inside])
    )
    if here:
        return here
    lost = int(np.isnan(area if there else gap)[1:].sum())
    reason = f"gap {there} among other films" if there else ""
    out = f"not computable in {lost} of {len(gap) - 1} resamples, left out of the intervals"
    return "; ".join(filter(None, (reason, out if lost else "")))


def _macro_note(findings: tuple[str, ...], gap: Sampled, over: Bool[np.ndarray, " k"]) -> str:
    """Return which findings a mean is over, for the gap too, and how many resamples lack one."""
    note = mean_over(findings, over)
    paired = over & ~np.isnan(gap[:, 0])
    note += f"; gap over {paired.sum()}" if paired.sum() < over.sum() else ""
    lost = int(np.isnan(gap[paired]).any(axis=0).sum())
    return note + (f"; over fewer in {lost} of {gap.shape[1] - 1} resamples" if lost else "")


AGES = ("under 18", "18 to 39", "40 to 64", "65 and over")
_COUNT = "films_of_patient"
# The column of a fact, and edges and names of the bands of a number; text groups as it stands.
FACTS: dict[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "view": ("view", (), ()),
    "sex": ("sex", (), ()),
    "age": ("age", (0.0, 18.0, 40.0, 65.0, np.nextafter(OLDEST, np.inf)), AGES),
    "visit": ("follow_up", (0.0, 1.0, np.inf), ("first film", "follow-up")),
    "source": (SOURCE, (), ()),
    "films of the patient": (_COUNT, (1.0, 2.0, 5.0, np.inf), ("1", "2 to 4", "5 and more")),
}
