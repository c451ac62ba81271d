"""Verdicts of reviewers on labels, kept in a run as `lucency audit score-review` reads them.

A verdict says whether the label of one film for one finding is right. The folder holds sample.csv
and answers.csv: a sheet a finding and label, every film of which stands for itself alone (weight
1), since the reviewer chose it. answers.csv has a column of notes beside those of a review's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lucency.audit.review import ANSWERS, NO, SAMPLE, TEXT, UNSURE, YES, film_id
from lucency.core.files import write_table
from lucency.core.manifest import read_table

SAMPLE_FILE, ANSWERS_FILE = "sample.csv", "answers.csv"
VERDICTS = ("right", "wrong", "unsure")
LONGEST = 2_000  # letters of a note or a name
PRESENT = {1: "labelled present", 0: "labelled absent"}
COLUMNS = (*ANSWERS, "note")


class Verdict(NamedTuple):
    """What one reviewer thinks of the label (1 or 0) of a film for a finding."""

    image: str
    finding: str
    label: int
    reviewer: str
    verdict: str
    note: str


def check_verdict(verdict: Verdict) -> Verdict:
    """Return a verdict with its texts on one line each; ValueError for an unknown word, no name."""
    if verdict.verdict not in VERDICTS:
        raise ValueError(
            f"verdict: found {verdict.verdict!r}, expected one of {', '.join(VERDICTS)}"
        )
    reviewer, note = (" ".join(text.split()) for text in (verdict.reviewer, verdict.note))
    if not reviewer:
        raise ValueError("reviewer: found no name; expected a name or initials")
    if max(len(reviewer), len(note)) > LONGEST:
        raise ValueError(f"note: found more than {LONGEST:,} letters; expected a short one")
    return verdict._replace(reviewer=reviewer, note=note)


def read_verdicts(folder: Path) -> list[Verdict]:
    """Return the verdicts that `save_verdicts` wrote into a folder; none where it is not there."""
    if not (folder / ANSWERS_FILE).is_file():
        return []
    sample = read_table(folder / SAMPLE_FILE, text=TEXT, columns=SAMPLE)
    answers = read_table(folder / ANSWERS_FILE, text=COLUMNS, columns=COLUMNS)
    sheets = sample.drop_duplicates("sheet").set_index("sheet")
    found = []
    for row in answers.to_dict("records"):
        finding, label = (sheets.loc[row["sheet"], name] for name in ("finding", "label"))
        verdict = _ANSWERED[int(label), row["answer"]]
        about = (row["image"], str(finding), int(label), row["reviewer"], verdict, row["note"])
        found.append(Verdict(*about))
    return found


def save_verdicts(verdicts: Iterable[Verdict], folder: Path) -> None:
    """Write sample.csv, then answers.csv, each whole; see `lucency.audit.review` for both."""
    rows = sorted(verdicts)
    folder.mkdir(exist_ok=True)
    sheets = [f"{one.finding}, {PRESENT[one.label]}" for one in rows]
    table = pd.DataFrame(rows, columns=list(Verdict._fields)).assign(sheet=sheets, also="")
    answer = [_answer(one) for one in rows]
    films = table.drop_duplicates(["sheet", "image"]).assign(weight=1.0)
    films["id"] = [film_id(name) for name in films["image"]]
    films["place"] = films.groupby("sheet").cumcount() + 1
    write_table(films.loc[:, list(SAMPLE)], folder / SAMPLE_FILE)
    write_table(table.assign(answer=answer).loc[:, list(COLUMNS)], folder / ANSWERS_FILE)


def _answer(verdict: Verdict) -> str:
    """Return whether the finding is seen, which is what a review's form holds."""
    if verdict.verdict == "unsure":
        return UNSURE
    return YES if (verdict.verdict == "right") == bool(verdict.label) else NO


_ANSWERED = {
    (label, _answer(Verdict("", "", label, "", verdict, ""))): verdict
    for label in PRESENT
    for verdict in VERDICTS
}
