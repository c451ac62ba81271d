"""Classical learners on the features of a network, one finding against the rest, as predictions.

After Shoaib et al. (2024), frozen features and learners beside the fine-tuned head; all that is
fitted or chosen is fitted inside folds of patients (`lucency.combine.nested`).

Letters in shapes: n films (t train, m do not), k findings, d feature dimensions, c components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int64

from lucency.combine.learners import LEARNERS, OVERSAMPLING
from lucency.combine.nested import (
    Learnt,
    folds_by_patient,
    learn_nested,
    prevalence_logit,
)
from lucency.combine.space import REDUCTIONS, Fitting
from lucency.predictions import Predictions
from lucency.values import Manifest, nearest

PLAIN = Fitting()


def cross_validated(
    feature: Float[np.ndarray, "n d"],
    *,
    manifest: Manifest,
    source: str,
    learner: str,
    seed: int,
    folds: int = 5,
    fitting: Fitting = PLAIN,
) -> tuple[Predictions, pd.DataFrame]:
    """Return what a learner says of the films of patients it has not seen, in folds by patient.

    `source` is the network whose features these are; all films have the part "test". Each fold's
    logits are moved from its training films' prevalence to that of all: the more positives are left
    out, the fewer are trained on, and AUCs of noise fall to .4 (Parker, Gunter and Bedo, BMC
    Bioinformatics 8, 2007, 326). The table says what was chosen and fitted, by fold and finding.
    Raises ValueError as `learn_on_features` and `folds_by_patient` do.
    """
    fold = folds_by_patient(manifest.patient, folds=folds, seed=seed)
    network, label = f"{learner} on {source}", manifest.label
    logit, tables, common = np.empty(label.shape), [], prevalence_logit(label)
    for one in range(folds):
        learnt = learn_on_features(
            feature, label=label, patient=manifest.patient, train=fold != one,
            learner=learner, seed=seed, fitting=fitting,
        )  # fmt: skip
        logit[fold == one] = learnt.logit + common - prevalence_logit(label[fold != one])
        tables.append(_table(network, learnt, manifest.findings, label[fold != one], fold=one))
    said = Predictions(
        network=network, split=f"{folds} folds by patient, seed {seed}", logit=logit,
        findings=manifest.findings, image=manifest.image, patient=manifest.patient, label=label,
        part=np.full(len(fold), "test"), feature=np.empty((len(fold), 0), dtype=np.float32),
    )  # fmt: skip
    return said, pd.concat(tables, ignore_index=True)


def classical_predictions(
    train: Predictions,
    asked: Sequence[Predictions],
    *,
    learner: str,
    seed: int,
    fitting: Fitting = PLAIN,
) -> tuple[list[Predictions], pd.DataFrame]:
    """Return what a learner fitted to training films says of others, such as val and test.

    All are predictions of one network, of which the features are taken. Where it was trained on
    the same training films their features say too much and the learner is too sure: recalibrate
    its logits on validation films. The table is that of `cross_validated`, with -1 as the fold.
    Raises ValueError for several networks or splits, no features, and as `learn_on_features` does.
    """
    sides = (train, *asked)
    about = {(one.network, one.split, one.findings, one.feature.shape[1]) for one in sides}
    if len(about) > 1 or not train.feature.shape[1]:
        found = "; ".join(sorted(f"{one[0]}, split {one[1]}, {one[3]} dimensions" for one in about))
        expected = "expected one network, split and list of findings, with features"
        raise ValueError(f"predictions of {found}; {expected}")
    films = [len(one) for one in sides]
    learnt = learn_on_features(
        np.concatenate([one.feature for one in sides]),
        label=np.concatenate([train.label, *(np.full_like(one.label, np.nan) for one in asked)]),
        patient=np.concatenate([one.patient for one in sides]),
        train=np.arange(sum(films)) < len(train),
        learner=learner, seed=seed, fitting=fitting,
    )  # fmt: skip
    network, said = f"{learner} on {train.network}", []
    for one, logit in zip(asked, np.split(learnt.logit, np.cumsum(films[1:-1])), strict=True):
        nothing = np.empty((len(one), 0), dtype=np.float32)
        said.append(replace(one.uncalibrated(), network=network, logit=logit, feature=nothing))
    return said, _table(network, learnt, train.findings, train.label, fold=-1)


def learn_on_features(
    feature: Float[np.ndarray, "n d"],
    *,
    label: Float32[np.ndarray, "n k"],
    patient: Int64[np.ndarray, " n"],
    train: Bool[np.ndarray, " n"],
    learner: str,
    seed: int,
    fitting: Fitting = PLAIN,
) -> Learnt:
    """Return what a learner of LEARNERS says of the films outside `train`, as `learn_nested` says.

    Raises ValueError for an unknown name, too.
    """
    names = (LEARNERS, OVERSAMPLING, REDUCTIONS)
    words = (learner, fitting.oversampling, fitting.reduction)
    for word, known in zip(words, names, strict=True):
        if word not in known:
            expected = f"expected one of {', '.join(known)}{nearest(word, known)}"
            raise ValueError(f"{word!r} is unknown; {expected}")
    chosen = LEARNERS[learner]
    return learn_nested(
        feature, label=label, patient=patient, train=train, fitting=fitting,
        learner=chosen._replace(balance=OVERSAMPLING[fitting.oversampling](chosen)), seed=seed,
    )  # fmt: skip


def _table(
    network: str, learnt: Learnt, findings: Sequence[str], label: np.ndarray, *, fold: int
) -> pd.DataFrame:
    chosen = ", ".join(f"{name}={value:g}" for name, value in learnt.choice.items())
    return pd.DataFrame(
        {
            "network": network,
            "fold": fold,
            "finding": findings,
            "choice": chosen,
            "inner_auc": learnt.auc,
            "slope": [one.slope for one in learnt.line],
            "offset": [one.offset for one in learnt.line],
            "films": (~np.isnan(label)).sum(axis=0),
            "positives": (label == 1).sum(axis=0),
            "milliseconds": 1000 * learnt.seconds / len(learnt.logit),
            "note": [one.note for one in learnt.line],
        }
    )
