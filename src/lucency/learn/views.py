"""Test-time augmentation: a film and several views of it, each said something of; the mean counts.

Letters in shapes: none; predictions alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lucency.learn.device import device_here
from lucency.learn.predict import Progress, films_for, forward, predict
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

    def so_far(turn: int) -> Progress:
        return lambda at, total, note: progress(turn * total + at, (1 + views) * total, note)

    said = predict(classifier, prepared=prepared, plan=plan, progress=so_far(0))
    logit = said.logit.astype(np.float64)
    plain = films_for(classifier, prepared=prepared, plan=plan)
    for view in range(views):
        films = replace(plain, recipe=recipe, seed=seed, epoch=view)
        logit += forward(
            classifier.network, films=films, device=device_here(), progress=so_far(1 + view)
        )[0]
    nothing = np.empty((len(plan), 0), dtype=np.float32)
    return replace(said.uncalibrated(), logit=logit / (1 + views), feature=nothing)
