"""The leak doctor on a protocol and its films: phantoms, pretrained weights, lost films, labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lucency.audit.checks.issue import Issue, issues_of
from lucency.config.protocol import Protocol
from lucency.core.predictions import Predictions

BEFORE = ("invented_films", "pretrained_on_these", "random_weights")  # of a protocol
BESIDE = ("rejected_films", "missing_films", "unstated_labels")  # of a run
CHEST = re.compile(r"chest|nih\b|cxr|mimic|chexpert|padchest|x-?ray", re.IGNORECASE)


def remark(
    protocol: Protocol, *, test: Predictions, rejected: pd.DataFrame, missing: Sequence[str]
) -> list[Issue]:
    """Return what must be read beside the scores of a run.

    `test` are the predictions of any network on test films; `rejected` the films that could not be
    decoded and `missing` the names of those without a file.
    """
    beside = [*_lost(rejected, missing), *_unstated(test)]
    return [*invented(protocol), *pretrained(protocol), *beside]


def invented(protocol: Protocol) -> list[Issue]:
    """Return that the films are phantoms, where they are."""
    films = ["phantoms"] if protocol.data.source == "phantom" else []
    message = (
        "the films are phantoms: scores on them show that the program works, and are no evidence "
        "for real films"
    )
    remedy = "run a protocol on real films"
    return issues_of("invented_films", films, message, remedy=remedy, severity="note")


def pretrained(protocol: Protocol) -> list[Issue]:
    """Return the networks whose weights have seen these films, or come from random numbers."""
    networks = protocol.network
    shown = {what: [n.name for n in networks if n.seen == what] for what in ("labels", "images")}
    remedy = "take weights that never saw these films, or compare with networks that saw as much"
    message = (
        f"the weights of {', '.join(shown['labels'])} have been shown labels of these films, "
        "test films maybe among them: scores may be memory"
    )
    found = issues_of("pretrained_on_these", shown["labels"], message, remedy=remedy)
    message = (
        f"the weights of {', '.join(shown['images'])} have been shown these films without labels: "
        "an advantage that other networks do not have"
    )
    found += issues_of(
        "pretrained_on_these", shown["images"], message, remedy=remedy, severity="note"
    )
    unsure = [n.name for n in networks if n.seen == "" and CHEST.search(n.provenance)]
    message = (
        f"the weights of {', '.join(unsure)} come from chest films, it says, and the protocol "
        "does not say whether from these"
    )
    remedy = 'say network.seen: "labels", "images" or "none" of these films'
    found += issues_of("pretrained_on_these", unsure, message, remedy=remedy, severity="note")
    fresh = [n.name for n in networks if n.weights == "random"]
    message = (
        f"trained from random initialisation, not from pre-trained weights: {', '.join(fresh)}"
    )
    remedy = 'weights = "timm" starts from ImageNet, which helps most where films are few'
    return found + issues_of("random_weights", fresh, message, remedy=remedy, severity="note")


def _lost(rejected: pd.DataFrame, missing: Sequence[str]) -> list[Issue]:
    names = rejected["image"].tolist()
    message = f"{len(names):,} films could not be decoded and were left out"
    remedy = "see rejected.csv for the reasons, and fetch these films again"
    found = issues_of("rejected_films", names, message, remedy=remedy, severity="note")
    message = f"{len(missing):,} films are listed but have no file, and were left out"
    remedy = "add the files below data.root, or say in every table that they are missing"
    return found + issues_of("missing_films", missing, message, remedy=remedy, severity="note")


def _unstated(test: Predictions) -> list[Issue]:
    unstated = np.isnan(test.label)
    count = int(unstated.sum())
    message = (
        f"{count:,} labels of {unstated.any(axis=1).sum():,} test films are not stated: they count "
        "neither as right nor as wrong"
    )
    films = test.image[unstated.any(axis=1)].tolist()
    remedy = "state them, or say beside the scores on how many films each stands"
    return issues_of("unstated_labels", films, message, count=count, severity="note", remedy=remedy)
