"""The report's chapter on claims: beside the published study, and on patients set apart."""

from __future__ import annotations

from typing import Any

from lucency.judge.beside import Beside
from lucency.judge.evaluate import MACRO
from lucency.judge.half import HALF_METRICS
from lucency.judge.published_study import NOTHING, SOURCE, TEST_FILMS


def beside_values(beside: Beside) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses; nothing for no table."""
    if not beside:
        return {}
    study = beside.study.to_dict("records")
    return {
        "conclusion": beside.conclusion,
        "inflation": beside.inflation.to_dict("records"),
        "macro": MACRO,
        "study": {(row["network"], row["metric"]): row for row in study},
        "networks": {row["network"]: row["as_published"] for row in study},
        "metrics": {name: HEADINGS[name] for name in HALF_METRICS},
        "source": SOURCE,
        "test_films": TEST_FILMS,
        "nothing": NOTHING,
    }


HEADINGS = {
    "auc": "AUC, pooled", "accuracy": "Binary accuracy", "precision": "Precision",
    "recall": "Recall", "f1": "F1", "bce": "Loss",
}  # fmt: skip
