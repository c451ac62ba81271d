"""Test-time augmentation: a film and several views of it, each said something of; the mean counts.

Letters in shapes: none; predictions alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lucency.learn.device import device_here
from lucency.learn.predict import Progress, films_for, forward
from lucency.learn.zoo import Classifier
from lucency.plan import Plan
from lucency.predictions import Predictions
from lucency.values import Prepared


def predict_views(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    recipe: str,
    views: int,
    seed: int,
    progress: Progress,
) -> Predictions:
    """Return the mean logits of the plan's entries as they are and of `views` views by `recipe`.

    A view depends on seed, film and its number alone. Nothing is calibrated, and no features kept.
    Raises ValueError for films of other findings.
    """
    plain = films_for(classifier, prepared=prepared, plan=plan)
    several = [plain, *(replace(plain, recipe=recipe, seed=seed, epoch=v) for v in range(views))]
    logit = np.zeros(plan.label.shape)
    for turn, films in enumerate(several):
        logit += forward(
            classifier.network,
            films=films,
            device=device_here(),
            progress=lambda at, total, note, turn=turn: progress(
                turn * total + at, len(several) * total, note
            ),
        )[0]
    return Predictions(
        network=classifier.name,
        split=classifier.split,
        findings=classifier.findings,
        image=plan.names(prepared.manifest.image),
        patient=prepared.manifest.patient[plan.row],
        part=plan.part,
        label=plan.label,
        logit=logit / len(several),
        feature=np.empty((len(plan), 0), dtype=np.float32),
    )
