"""The report's gallery of augmentation: what copies and epochs make of a few training films."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lucency.config.protocol import Protocol
from lucency.core.manifest import Prepared
from lucency.core.plan import COPY_MARK, Plan

if TYPE_CHECKING:
    from lucency.report.run_page import Gallery

GALLERY_FILMS, GALLERY_VERSIONS, GALLERY_SEED = 4, 3, 0

Shown = tuple[str, np.ndarray]  # caption, picture


def augmentation_gallery(protocol: Protocol, films: Prepared, plan: Plan) -> Gallery:
    """Return pictures of augmentation: of some films together, and of the first step by step."""
    from lucency.report.run_page import Gallery

    together = _augmented(protocol, films, plan)
    return Gallery(together, _steps_alone(protocol, plan, together[0]) if together else [])


def _augmented(protocol: Protocol, films: Prepared, plan: Plan) -> list[Shown]:
    """Return films beside their copies or, without copies, beside what epochs make of them."""
    from lucency.models.film_loader import Films

    train = plan.take(plan.part == "train")
    copied = np.flatnonzero(train.copy > 0)
    recipe, seed = protocol.training.recipe, protocol.training.seed
    if not len(copied) and recipe == "none":
        return []
    chosen = np.unique(train.row[copied]) if len(copied) else train.row
    shown: list[Shown] = []
    for row in np.random.default_rng(GALLERY_SEED).permutation(chosen)[:GALLERY_FILMS]:
        shown.append((str(films.manifest.image[row]), films.pixels[row]))
        seen = Films(prepared=films, plan=train, copies=protocol.balance.seed)
        for entry in np.flatnonzero((train.row == row) & (train.copy > 0))[:GALLERY_VERSIONS]:
            caption = f"copy {train.copy[entry]}: {train.transform[entry]}"
            shown.append((caption, seen.picture(int(entry))))
        for epoch in range(GALLERY_VERSIONS if not len(copied) else 0):
            seen = replace(seen, recipe=recipe, seed=seed, epoch=epoch)
            entry = int(np.flatnonzero(train.row == row)[0])
            shown.append((f"epoch {epoch + 1}: {recipe}", seen.picture(entry)))
    return shown


def _steps_alone(protocol: Protocol, plan: Plan, film: Shown) -> list[Shown]:
    """Return a film, and each step alone of the recipes that copies and epochs are changed by."""
    from lucency.models.augmentation import steps_alone

    links = {link for chain in np.unique(plan.transform).tolist() for link in chain.split(">")}
    copied = {link.rpartition(COPY_MARK)[0] for link in links if link}
    recipes = sorted(copied | ({protocol.training.recipe} - {"none"}))
    shown = steps_alone(np.asarray(film[1]), recipes=recipes)
    return [film, *shown] if shown else []
