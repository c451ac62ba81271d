"""Audit of one network: shortcuts, hidden strata, and all tables of `AuditResults`.

A shortcut is a fact beside the finding, such as view, sex or a drain, on which a score depends: the
features hold it (linear probes show which), it goes with the label, and the score goes with it
among films that are labelled alike. It may be a true companion of the illness; no number decides
that. Hidden strata are clusters of a finding's positives in feature space, each with its own AUC.
Oakden-Rayner et al., Hidden stratification (CHIL 2020, arXiv 1909.12475): pneumothoraces with a
drain are found easily, those without, which matter, are not.

Letters in shapes: n films, m positives, d feature dimensions, c components, v different values, r
resamples (the first: all films).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from scipy.optimize import isotonic_regression
from scipy.special import ndtr
from scipy.stats import chi2
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lucency.core.files import write_table, write_whole
from lucency.core.manifest import OLDEST, SOURCE, read_table
from lucency.core.predictions import Predictions
from lucency.core.saved_files import SavedFields
from lucency.core.written import read_stage_fields
from lucency.data.film_names import folder_of
from lucency.evaluation.bootstrap import Weights, all_and_resampled, once, ratio
from lucency.evaluation.intervals import auc_interval, bootstrap_interval
from lucency.evaluation.metrics import auc
from lucency.evaluation.significance import LEVEL, holm

FOLDS, COMPONENTS = 5, 32  # of a probe
FEWEST_OF_LEVEL = 20  # films of a level, and patients, for it to be probed
FEWEST_PATIENTS = 20  # with a finding, and without, for it to be tested; of 12, p is too small
UNKNOWN = ""
MOST_LEVELS = 12  # a folder a patient is no fact
TINY = 1e-12
FLAT = 1e-6  # of the widest component: a narrower one is rounding
FEWEST, SMALLEST = 40, 10  # patients with a finding, and films of a cluster
MOST, REDUCED = 4, 16  # clusters, and components in which they are sought
EXAMPLES, SAMPLE = 12, 2_000
DRAWS = 20  # a finding, of films of one kind: the smallest p, by Holm over findings, is below .05
ENOUGH = 10  # draws in which films of one kind part as far: no more are needed
MODES = 16  # places at which the mode of a unimodal distribution is sought
PROBES = ("fact", "level", "auc", "low", "high", "films", "others", "note")
SHORTCUTS = (
    "finding", "fact", "levels", "auc", "with_it", "without_it", "adjusted_auc", "confounding",
    "confounding_low", "confounding_high", "association", "association_low", "association_high",
    "p_holm", "films", "positives", "left_out", "shortcut",
)  # fmt: skip
STRATA = (
    "finding", "stratum", "auc", "low", "high", "films", "patients", "silhouette", "p_holm",
    "examples",
)  # fmt: skip
TABLES = ("label_quality", "probes", "shortcuts", "strata", "pictures", "odd")
TEXT = (
    "finding", "rating", "reason", "fact", "level", "levels", "note", "examples", "problem",
    "image",
)  # fmt: skip
Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Score = Float[np.ndarray, " n"]
Level = Shaped[np.ndarray, " n"]  # of a fact, or UNKNOWN
Reduced = Float[np.ndarray, "m c"]
Values = Float64[np.ndarray, " r"]
Column = Float[np.ndarray, " m"]
Points = Float64[np.ndarray, " v"]
Levels = Mapping[str, Level]  # by fact


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResults:
    """The audit of one network's scores: `label_quality` is of audit.agreement.

    `pictures` counts what `odd` lists, of audit.image_quality.
    """

    network: str
    label_quality: pd.DataFrame
    probes: pd.DataFrame
    shortcuts: pd.DataFrame
    strata: pd.DataFrame
    pictures: pd.DataFrame
    odd: pd.DataFrame


def save_audit_results(results: AuditResults, folder: Path) -> None:
    """Write one CSV a table, and audit.json."""
    for name in TABLES:
        write_table(getattr(results, name), folder / f"{name}.csv")
    write_whole(folder / "audit.json", json.dumps({"network": results.network}))


class AuditFields(SavedFields):
    """What audit.json holds."""

    network: str


def load_audit_results(folder: Path) -> AuditResults:
    """Read what `save_audit_results` wrote.

    Raises ValueError for a damaged file, and OSError for one that the system does not read.
    """
    network = read_stage_fields(folder / "audit.json", AuditFields).network
    needed = {"shortcuts": ("shortcut",)}
    tables = {
        name: read_table(folder / f"{name}.csv", text=TEXT, columns=needed.get(name, ()))
        for name in TABLES
    }
    tables["shortcuts"] = tables["shortcuts"].astype({"shortcut": bool})
    tables["strata"] = tables["strata"].reindex(columns=list(STRATA))  # older files have no p
    return AuditResults(network=network, **tables)


def known_facts(facts: pd.DataFrame) -> dict[str, Level]:
    """Return the level of each film by each fact of FACTS that has 2 to MOST_LEVELS levels."""
    found = {
        name: np.asarray(level(pd.Series(facts[column])), dtype=object)
        for name, (column, level) in FACTS.items()
        if column in facts
    }
    several = range(2, MOST_LEVELS + 1)
    return {name: level for name, level in found.items() if len({*level} - {UNKNOWN}) in several}


def probe(predictions: Predictions, levels: Levels, *, seed: int) -> pd.DataFrame:
    """Return how well each level of each fact can be read off the features: AUC, out of fold.

    A linear probe (Alain and Bengio, 2016): standardised, at most 32 principal components, logistic
    regression; five folds by patient, nothing fitted outside its fold. Of two levels one is probed.
    95 % intervals over patients. A level with fewer than FEWEST_OF_LEVEL films or patients, or so
    few others, is NaN, and so is everything without features.
    """
    rows = []
    for fact, level in levels.items():
        names = [name for name in pd.unique(level) if name != UNKNOWN]
        for name in sorted(names)[: 1 if len(names) == 2 else len(names)]:
            label = np.where(level == UNKNOWN, np.nan, level == name).astype(np.float32)
            films = [int((label == one).sum()) for one in (1, 0)]
            note, area = _too_few(label, predictions), (np.nan,) * 3
            if not note:
                score = _read_off(predictions, label, seed=seed)
                ends = auc_interval(label, score, owner=predictions.patient)
                area = (auc(label, score, weights=once(len(label)))[0], *ends)
            rows.append((fact, name, *area, *films, note))
    return pd.DataFrame(rows, columns=list(PROBES))


def find_shortcuts(
    predictions: Predictions, levels: Levels, probes: pd.DataFrame, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return for each finding and fact whether the score depends on it, and by how much of AUC.

    `levels` are those in which the finding is commoner than in all; `with_it` and `without_it` the
    AUCs of positives in these and in the others, against all negatives. `association` is the AUC of
    the score for these levels among films labelled alike: the mean of the AUCs within positives and
    within negatives, weighted as van Elteren (1960) does; .5 where there is none. `confounding` is
    the AUC less `adjusted_auc`, the covariate-adjusted AUC of Janes and Pepe (Biometrika 96, 2009,
    371-382): the mean of the AUCs within levels, by their positives; those of levels without
    negatives are `left_out`. 95 % intervals over patients; p is the larger of two, that the
    association is .5 (normal, by the resamples' standard error) and that the finding is equally
    common in all levels, for pairs with a level that can be read off the features (the probe's
    interval is above .5), corrected by Holm over these. `shortcut`: an association above .5 with
    p_holm below .05, and positives with it are ranked above those without. A finding with fewer
    than FEWEST_PATIENTS patients with it or without is left out, and so is a fact that is the same
    on all its films.
    """
    weights = all_and_resampled(predictions.patient, resamples=resamples, seed=seed)
    score = predictions.calibrated
    rows = []
    for k, finding in enumerate(predictions.findings):
        for fact, level in levels.items():
            label = np.where(level == UNKNOWN, np.nan, predictions.label[:, k])
            people = [len(np.unique(predictions.patient[label == one])) for one in (0, 1)]
            if min(people) < FEWEST_PATIENTS:
                continue
            common = _commoner(label, level)
            inside = np.isin(level, common)
            if inside.any() and not inside[~np.isnan(label)].all():
                pair = _measure_pair(label, score[:, k], level, inside, weights)
                rows.append((finding, fact, ", ".join(common), *pair))
    table = pd.DataFrame(rows, columns=list(SHORTCUTS[:-1]))
    readable = table["fact"].isin(probes.loc[probes["low"] > 0.5, "fact"])
    p = holm(table["p_holm"].astype(float).where(readable).to_numpy())
    helps = (table["association"] > 0.5) & ~(table["with_it"] <= table["without_it"])
    found = readable & (p < LEVEL) & helps
    return table.assign(p_holm=p, shortcut=found.to_numpy(dtype=bool))


def shortcut_reasons(table: pd.DataFrame) -> dict[str, str]:
    """Return for each finding that has shortcuts the facts, their association and AUCs."""
    reasons: dict[str, list[str]] = {}
    for row in table.loc[table["shortcut"]].to_dict("records"):
        bare = row["without_it"]
        lacking = f"without it {bare:.3f}" if bare == bare else "no positive without it"
        reasons.setdefault(row["finding"], []).append(
            f"{row['fact']} = {row['levels']} (association {row['association']:.2f}; AUC with it "
            f"{row['with_it']:.3f}, {lacking})"
        )
    return {finding: "; ".join(several) for finding, several in reasons.items()}


def strata(predictions: Predictions, *, seed: int) -> pd.DataFrame:
    """Return the clusters of each finding's positives, the one with the lowest AUC first.

    K-means on at most 16 principal components of standardised features, 2 to 4 clusters of at least
    SMALLEST films by the best silhouette (Rousseeuw 1987), which measures how far apart they are.
    K-means cuts whatever it is given, so only findings whose positives are of more than one kind by
    `p_of_one_kind` are listed, p below .05 after Holm's correction over all findings with clusters.
    The AUC is of a cluster's films against all negatives, with 95 % interval over patients.
    Features make the scores, so clusters differ somewhat: view `examples`, the films nearest to the
    centre, joined by |. Findings with positives of fewer than FEWEST patients are left out, those
    whose clusters are too small, and all without features.
    """
    score, random = predictions.calibrated, np.random.default_rng(seed)
    found = list(_clusters(predictions, seed=seed))
    p = []
    for _, films, reduced, _, _ in found:
        shuffled = random.permutation(len(films))
        _, first = np.unique(predictions.patient[films[shuffled]], return_index=True)
        one_each = shuffled[np.sort(first)[:SAMPLE]]  # a patient's films are alike
        p.append(p_of_one_kind(reduced[one_each], draws=DRAWS * len(found), seed=seed))
    rows = []
    for (k, films, reduced, best, apart), corrected in zip(found, holm(np.array(p)), strict=True):
        if corrected >= LEVEL:
            continue
        label, distance = predictions.label[:, k], best.transform(reduced).min(axis=1)
        mine = []
        for one in range(best.n_clusters):
            member = np.asarray(best.labels_) == one
            inside = films[member]
            only = np.where(label == 1, np.nan, label)
            only[inside] = 1
            ends = auc_interval(only, score[:, k], owner=predictions.patient)
            area = (auc(only, score[:, k], weights=once(len(only)))[0], *ends)
            near = inside[np.argsort(distance[member], kind="stable")][:EXAMPLES]
            people = len(np.unique(predictions.patient[inside]))
            examples = "|".join(predictions.image[near].tolist())
            mine.append((*area, len(inside), people, apart, corrected, examples))
        about = predictions.findings[k]
        rows += [(about, place, *row) for place, row in enumerate(sorted(mine), start=1)]
    return pd.DataFrame(rows, columns=list(STRATA))


def p_of_one_kind(reduced: Reduced, *, draws: int, seed: int) -> float:
    """Return the p that films are of one kind, by at most `draws` draws of films that are.

    Films are cut in two by k-means; what is measured is how far they are from having one mode along
    the line through both centres, as the dip of Hartigan and Hartigan does (Annals of Statistics 13
    (1985), 70-84), so that a skewed kind is no two. A draw has as many films, each principal
    component from the unimodal distribution nearest to its own, which keeps its skew and its tails,
    and as uncorrelated and as wide as in the films (a unimodal reference: Helgeson, Vock and Bair,
    Biometrics 77 (2021), 1215-1226). Drawing ends when ENOUGH draws part as far, for no smaller p
    would come (Besag and Clifford, Biometrika 78 (1991), 301-304). Films must be independent: one a
    patient.
    """
    random = np.random.default_rng(seed)
    centred = reduced - reduced.mean(axis=0)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    own = centred @ axes[size > FLAT * size[0]].T  # uncorrelated, as the draws are
    observed = _parting(own, seed=seed)
    kinds = [nearest_unimodal(column)[:2] for column in own.T]
    reached = 0
    for drawn in range(1, draws + 1):
        alike = [np.interp(random.random(len(own)), below, value) for value, below in kinds]
        same = _uncorrelated(np.stack(alike, axis=1), spread=own.std(axis=0))
        reached += _parting(same, seed=seed) >= observed
        if reached == ENOUGH:
            return reached / drawn
    return (reached + 1) / (draws + 1)


def nearest_unimodal(column: Column) -> tuple[Points, Points, float]:
    """Return a unimodal distribution near to that of a column, and how far it is.

    The distribution is its values, rising, and the share below each, straight between them; the
    distance is the largest between both shares. Of MODES places of the mode the nearest is taken,
    with the density's best rising fit before and falling fit after it (Grenander's estimator,
    Skandinavisk Aktuarietidskrift 39 (1956), 125-153).
    """
    value, count = np.unique(column.astype(np.float64), return_counts=True)
    gap, share = np.diff(value), count[1:] / max(1, count[1:].sum())
    density, below = share / gap, np.append(0.0, np.cumsum(share))
    nearest, far = below, np.inf
    for place in np.unique(np.linspace(0, len(gap), MODES).astype(np.int64)):
        before = isotonic_regression(density[:place], weights=gap[:place]).x
        after = isotonic_regression(density[place:], weights=gap[place:], increasing=False).x
        fitted = np.append(before, after)
        other = np.append(0.0, np.cumsum(fitted * gap))
        distance = float(np.abs(other - below).max())
        if distance < far:
            nearest, far = other, distance
    return value, nearest, far


def _words(column: pd.Series) -> np.ndarray:
    return column.convert_dtypes().astype(object).fillna(UNKNOWN).astype(str).to_numpy()


def _age(column: pd.Series) -> np.ndarray:
    years = column.to_numpy(dtype=np.float64)
    names = ["under 40", "40 to 59", "60 and on"]
    return np.select([years < 40, years < 60, years <= OLDEST], names, UNKNOWN)


def _visit(column: pd.Series) -> np.ndarray:
    number = column.to_numpy(dtype=np.float64)
    return np.where(np.isnan(number), UNKNOWN, np.where(number > 0, "later", "first"))


def _read_off(predictions: Predictions, label: Label, *, seed: int) -> Score:
    """Return the out-of-fold logits of a fact, NaN where it is unknown."""
    feature, patient = predictions.feature, predictions.patient
    known = np.flatnonzero(~np.isnan(label))
    score = np.full(len(label), np.nan)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for rest, held in folds.split(feature[known], label[known], patient[known]):
        count = min(COMPONENTS, feature.shape[1], len(rest))
        reduced = PCA(count, svd_solver="randomized", random_state=seed)
        learner = make_pipeline(StandardScaler(), reduced, LogisticRegression(max_iter=1000))
        learner.fit(feature[known[rest]], label[known[rest]])
        logit = learner.decision_function(feature[known[held]])
        score[known[held]] = logit - np.median(logit)  # of networks trained apart
    return score


def _too_few(label: Label, predictions: Predictions) -> str:
    if not predictions.feature.shape[1]:
        return "not computable: predictions without features"
    for one, whose in ((1, "of this level"), (0, "of others")):
        films, people = (label == one).sum(), len(np.unique(predictions.patient[label == one]))
        if min(films, people) < FEWEST_OF_LEVEL:
            found = f"{films} films of {people} patients {whose}"
            return f"not computable: {found}, {FEWEST_OF_LEVEL} expected"
    return ""


def _commoner(label: Label, level: Level) -> list[str]:
    """Return the levels in which positives are a larger share than in all films."""
    share = np.nanmean(label)
    names = sorted(set(level[~np.isnan(label)].tolist()))
    return [name for name in names if np.nanmean(label[level == name]) > share]


def _measure_pair(
    label: Label, score: Score, level: Level, inside: Bool[np.ndarray, " n"], weights: Weights
) -> tuple[float | int, ...]:
    """Return the columns of SHORTCUTS from auc to left_out; p is not corrected yet."""
    area, plain = auc(label, score, weights=weights), once(len(label))
    sides = (np.where((label == 1) & (inside != one), np.nan, label) for one in (True, False))
    apart = (auc(side, score, weights=plain)[0] for side in sides)
    adjusted, left_out = _adjusted_auc(label, score, level, weights)
    association = _association(label, score, inside, weights)
    people = min(len(np.unique(weights.owner[label == one])) for one in (0, 1))
    confounding, associated = (
        (one[0], *bootstrap_interval(one, patients=people))
        for one in (area - adjusted, association)
    )
    sampled = association[1:]
    spread = np.nanstd(sampled) if np.isfinite(sampled).sum() > 1 else np.nan
    alone = 2 * ndtr(-abs(association[0] - 0.5) / max(spread, TINY))
    p = np.maximum(alone, _p_of_equal_shares(label, level, weights.owner))
    counts = (int((~np.isnan(label)).sum()), int((label == 1).sum()), left_out)
    areas = (area[0], *apart, adjusted[0])
    return (*areas, *confounding, *associated, p, *counts)


def _adjusted_auc(label: Label, score: Score, level: Level, weights: Weights) -> tuple[Values, int]:
    """Return the mean of the AUCs within levels by their positives, and the positives left out."""
    areas, lost = [], 0
    for name in pd.unique(level):
        mine = np.where(level == name, label, np.nan)
        area = auc(mine, score, weights=weights)
        lost += int((mine == 1).sum()) if np.isnan(area[0]) else 0
        areas.append((area, weights.total((mine == 1).astype(np.float64)[None])[0]))
    return _weighted_mean(areas), lost


def _association(
    label: Label, score: Score, inside: Bool[np.ndarray, " n"], weights: Weights
) -> Values:
    """Return the AUC of a score for the films inside among those labelled alike."""
    areas = []
    for one in (0, 1):
        member = np.where(label == one, inside.astype(np.float64), np.nan)
        sides = np.stack([member == 1, member == 0]).astype(np.float64)
        some, others = weights.total(sides)
        areas.append((auc(member, score, weights=weights), ratio(some * others, some + others)))
    return _weighted_mean(areas)


def _weighted_mean(areas: Iterable[tuple[Values, Values]]) -> Values:
    """Return the mean of AUCs by their weights; those that are not computable do not count."""
    area, weight = (np.stack(one) for one in zip(*areas, strict=True))
    known = ~np.isnan(area)
    products, counted = (np.where(known, one, 0) for one in (area * weight, weight))
    return ratio(products.sum(axis=0), counted.sum(axis=0))


def _p_of_equal_shares(label: Label, level: Level, owner: Int64[np.ndarray, " n"]) -> float:
    """Return the p that a finding is equally common in all levels: Pearson's chi-squared test.

    Divided by the mean design effect of films of one patient, if above 1, as Rao and Scott do
    (Journal of the American Statistical Association 76, 1981, 221-230).
    """
    known = ~np.isnan(label)
    names, place = np.unique(level[known].astype(str), return_inverse=True)
    odd = label[known] - label[known].mean()
    _, patient = np.unique(owner[known], return_inverse=True)
    cell = patient * len(names) + place
    size = (patient.max() + 1, len(names))
    excess = np.bincount(cell, weights=odd, minlength=size[0] * size[1]).reshape(size)
    share = np.bincount(place) / known.sum()
    even = excess - excess.sum(axis=1, keepdims=True) * share
    expected = share * (odd**2).sum()
    freedom = len(names) - 1
    effect = ((even**2).sum(axis=0) / expected).sum() / freedom
    return float(chi2.sf((even.sum(axis=0) ** 2 / expected).sum() / max(1, effect), freedom))


def _clusters(
    predictions: Predictions, *, seed: int
) -> Iterator[tuple[int, Int64[np.ndarray, " m"], Reduced, KMeans, float]]:
    """Yield each finding's place, positives, their components, clusters and the silhouette."""
    for k, label in enumerate(predictions.label.T):
        films = np.flatnonzero(label == 1)
        feature, people = predictions.feature[films], np.unique(predictions.patient[films])
        few = len(people) < FEWEST or not feature.shape[1] or not (label == 0).any()
        if few or not np.ptp(feature, axis=0).any():
            continue
        count, standard = min(REDUCED, *feature.shape), StandardScaler().fit_transform(feature)
        reduced = PCA(count, svd_solver="randomized", random_state=seed).fit_transform(standard)
        best, apart = _parted(reduced, seed=seed)
        if not np.isnan(apart):
            yield k, films, reduced, best, apart


def _uncorrelated(drawn: Reduced, *, spread: Float[np.ndarray, " c"]) -> Reduced:
    """Return films with components of this spread, without the correlations of chance."""
    scaled = (drawn - drawn.mean(axis=0)) / spread
    value, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    return scaled @ (axes / np.sqrt(value)) @ axes.T * spread


def _parting(reduced: Reduced, *, seed: int) -> float:
    """Return how far from unimodal films are along the line through the centres of two clusters."""
    one, other = KMeans(2, n_init="auto", random_state=seed).fit(reduced).cluster_centers_
    return nearest_unimodal(reduced @ (other - one))[2]


def _parted(reduced: Reduced, *, seed: int) -> tuple[KMeans, float]:
    """Return the clusters of the best silhouette, and that; NaN where a cluster is always small."""
    found = [KMeans(k, n_init="auto", random_state=seed).fit(reduced) for k in range(2, MOST + 1)]
    rows = np.random.default_rng(seed).permutation(len(reduced))[:SAMPLE]
    score = [_apart(reduced[rows], np.asarray(one.labels_)[rows]) for one in found]
    place = int(np.argmax(np.nan_to_num(score, nan=-1)))
    return found[place], float(score[place])


def _apart(reduced: Reduced, label: Int[np.ndarray, " m"]) -> float:
    """Return the silhouette; NaN where a cluster is small, or there is but one."""
    count = np.unique(label, return_counts=True)[1]
    if len(count) < 2 or count.min() < SMALLEST:
        return np.nan
    return float(silhouette_score(reduced, label))


FACTS: dict[str, tuple[str, Callable[[pd.Series], np.ndarray]]] = {  # column, levels
    "view": ("view", _words),
    "sex": ("sex", _words),
    "age": ("age", _age),
    "visit": ("follow_up", _visit),
    "folder": ("path", lambda column: np.array([folder_of(str(one)) for one in column])),
    "source": (SOURCE, _words),
    "drain": ("drain", _words),
    "marker": ("marker", _words),
}
