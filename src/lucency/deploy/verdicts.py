"""Verdicts of reviewers on labels, kept in a run as `lucency audit score-review` reads them.

A verdict says whether the label of one film for one finding is right. The folder holds sample.csv
and answers.csv: a sheet a finding and label, every film of which stands for itself alone (weight
1), since the reviewer chose it. answers.csv has a column of notes beside those of a review's.
Several programs may keep verdicts in one folder: each adds its own to what is there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lucency.audit.review import ANSWERS, AS_WRITTEN, NO, SAMPLE, TEXT, UNSURE, WORDS, YES, film_id
from lucency.core.files import BusyError, write_table
from lucency.core.locks import LOCK, held_lock
from lucency.core.manifest import nearest, read_table

SAMPLE_FILE, ANSWERS_FILE = "sample.csv", "answers.csv"
VERDICTS = ("right", "wrong", "unsure")
WITHDRAWN = ""  # in place of one of them: the verdict is taken back
LONGEST = 2_000  # letters of a note or a name
LOCK_SECONDS = 10.0
FORM = "form.csv"  # of a review that `lucency audit review` drew
UNPRINTABLE = ("Cc", "Cs")  # control characters and surrogates, which no file holds as text
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
    """Return a verdict with its texts on one line each.

    Raises ValueError for an unknown word, no name, and texts that are too long or no text.
    """
    if verdict.verdict not in (*VERDICTS, WITHDRAWN):
        raise ValueError(
            f"verdict: found {verdict.verdict!r}, expected one of {', '.join(VERDICTS)}"
        )
    reviewer, note = (" ".join(text.split()) for text in (verdict.reviewer, verdict.note))
    if not reviewer:
        raise ValueError("reviewer: found no name; expected a name or initials")
    if max(len(reviewer), len(note)) > LONGEST:
        raise ValueError(f"note: found more than {LONGEST:,} letters; expected a short one")
    if any(unicodedata.category(letter) in UNPRINTABLE for letter in reviewer + note):
        raise ValueError("note: found control characters or halves of letters; expected a text")
    return verdict._replace(reviewer=reviewer, note=note)


def read_verdicts(folder: Path) -> list[Verdict]:
    """Return the verdicts that were kept in a folder; none where it is not there.

    Answers may be in capitals; rows without one, as an edited table may have, are left out. Raises
    ValueError for a folder that holds another review, and for an unknown answer.
    """
    _refuse_other_review(folder)
    if not (folder / ANSWERS_FILE).is_file():
        return []
    answers = read_table(
        folder / ANSWERS_FILE,
        text=COLUMNS,
        columns=COLUMNS,
        remedy=f"expected {ANSWERS_FILE} {AS_WRITTEN}",
    )
    found = []
    for number, row in enumerate(answers.to_dict("records"), start=2):  # after the names
        finding, label = _labels_of(row["sheet"], folder)
        if not (answer := row["answer"].strip().lower()):
            continue
        if answer not in WORDS:
            raise ValueError(
                f"{folder / ANSWERS_FILE}, row {number}: answer {answer!r} is unknown; expected "
                f"{', '.join(WORDS)}{nearest(answer, WORDS)}"
            )
        verdict = _ANSWERED[label, answer]
        found.append(Verdict(row["image"], finding, label, row["reviewer"], verdict, row["note"]))
    return found


def keep_verdict(verdict: Verdict, folder: Path) -> None:
    """Add a checked verdict to those in a folder, in place of the reviewer's last on that label.

    Raises ValueError for a folder that holds another review, BusyError for one that another program
    writes.
    """
    from filelock import Timeout

    folder.mkdir(exist_ok=True)
    try:
        with held_lock(folder / LOCK, wait=LOCK_SECONDS):
            kept = {_key(one): one for one in read_verdicts(folder)}
            kept.pop(_key(verdict), None)
            new = [] if verdict.verdict == WITHDRAWN else [verdict]
            _write([*kept.values(), *new], folder)
    except Timeout:
        raise BusyError(f"{folder} is being written by another program: try again") from None


def _key(verdict: Verdict) -> tuple[str, str, str]:
    return verdict.image, verdict.finding, verdict.reviewer


def _refuse_other_review(folder: Path) -> None:
    if (folder / FORM).exists():
        raise ValueError(f"{folder} holds a review, with its {FORM}: move it to another place")
    if (folder / SAMPLE_FILE).is_file():
        for sheet in set(read_table(folder / SAMPLE_FILE, text=TEXT, columns=SAMPLE)["sheet"]):
            _labels_of(sheet, folder)


def _labels_of(sheet: str, folder: Path) -> tuple[str, int]:
    """Return the finding and the label that a sheet is of."""
    finding, _, words = sheet.rpartition(", ")
    label = next((label for label, name in PRESENT.items() if name == words), None)
    if label is None:
        raise ValueError(
            f"{folder} holds another review: found the sheet {sheet!r}, expected verdicts of the "
            "viewer alone; move it to another place"
        )
    return finding, label


def _write(verdicts: Iterable[Verdict], folder: Path) -> None:
    """Write sample.csv, then answers.csv, each whole; see `lucency.audit.review` for both."""
    rows = sorted(verdicts)
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
