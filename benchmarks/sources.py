"""How fast, and in how much memory, are the label files of whole collections read?

Usage: python benchmarks/sources.py [--rounds 3]. Real: CheXpert's training labels, which the
package torchxrayvision holds, beside its own reader of that file (all views and films), whose
labels must be the same. Synthetic: tables of MIMIC-CXR-JPG's size (377,110 films of 227,835
studies) with its columns, and the joining of so many names with files. Every cell is a fresh
process; readers of one file run in turn in each round, a ratio is the median of the rounds'.
Seconds are those after imports; where other programs hold the cores, compare processor time.
Memory is the process's peak, and what it was before.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gzip
import importlib
import importlib.util
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results"
PADCHEST = "PadChest (real): lucency"
CHEXPERT, RIVAL, MIMIC, JOIN = (
    "CheXpert train (real): lucency",
    "CheXpert train (real): torchxrayvision",
    "MIMIC-CXR-JPG (synthetic): lucency",
    "MIMIC-CXR-JPG (synthetic): names joined with files",
)
WRITE = "tables of MIMIC-CXR-JPG's size"
FILMS, STUDIES, PATIENTS = 377_110, 227_835, 65_000
LIMITS = {MIMIC: (20.0, 2048), PADCHEST: (10.0, 2048)}  # seconds, MB: what the reader is to keep
OTHERS = (  # columns of the metadata that the reader does not need
    "PerformedProcedureStepDescription", "Rows", "Columns", "StudyTime",
    "ProcedureCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
Answer = dict[str, float]


def main() -> None:
    """Measure every case, print a table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    parser.add_argument("--root", default="", help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.case:
        print(json.dumps(measure(CASES[choices.case], Path(choices.root))))
        return
    found = importlib.util.find_spec("torchxrayvision")
    if found is None or not found.submodule_search_locations:
        print("torchxrayvision is not installed: its label file and its reader are left out")
    with tempfile.TemporaryDirectory() as folder:
        roots = {name: Path(folder) for name in (MIMIC, JOIN)}
        _in_a_process(WRITE, Path(folder))  # whose memory none of those below inherits
        if found and found.submodule_search_locations:
            real = Path(found.submodule_search_locations[0]) / "data"
            roots |= {CHEXPERT: real, RIVAL: real, PADCHEST: real}
        rounds = [{name: _in_a_process(name, root) for name, root in roots.items()}
                  for _ in range(choices.rounds)]  # fmt: skip
    table = summarise(rounds)
    print(table.to_string(index=False))
    label = f"{platform.machine()}-{os.cpu_count()}core-{datetime.date.today()}"
    table.to_csv(RESULTS / f"sources-{label}.csv", index=False)


def measure(case: Callable[[Path], Callable[[], Answer]], root: Path) -> Answer:
    """Return a case's own answer with its seconds, and the process's memory before it and at peak.

    `case` imports what it needs, and returns what is measured.
    """
    work = case(root)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, spent = time.perf_counter(), time.process_time()
    answer = work()
    seconds, spent = time.perf_counter() - started, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**answer, "seconds": seconds, "processor": spent, "before_mb": before, "peak_mb": peak}


def tables(root: Path) -> Callable[[], Answer]:
    """Write the synthetic tables."""

    def write() -> Answer:
        write_mimic(root)
        return {"films": FILMS}

    return write


def chexpert(root: Path) -> Callable[[], Answer]:
    """Read CheXpert's training labels as a protocol does: empty cells of No Finding are 0."""
    from lucency.config.sections import Source
    from lucency.data.sources import SOURCES

    source = Source(source="chexpert", root=str(root), labels="chexpert_train.csv.gz")

    def read() -> Answer:
        films = SOURCES["chexpert"](source, findings=NAMES)
        return {"films": len(films), **_sums(films.label)}

    return read


def padchest(root: Path) -> Callable[[], Answer]:
    """Read PadChest's labels as a protocol does, with the 14 findings.

    torchxrayvision drops rows and matches parts of names: it answers another question.
    """
    from lucency.config.sections import Source
    from lucency.core.manifest import FINDINGS
    from lucency.data.sources import SOURCES

    source = Source(source="padchest", root=str(root))

    def read() -> Answer:
        films = SOURCES["padchest"](source, findings=FINDINGS)
        return {"films": len(films), **_sums(films.label)}

    return read


def torchxrayvision(root: Path) -> Callable[[], Answer]:
    """Read the same file by torchxrayvision, all views and all films of a patient."""
    with contextlib.redirect_stdout(io.StringIO()):
        library: Any = importlib.import_module("torchxrayvision")

    def read() -> Answer:
        file = str(root / "chexpert_train.csv.gz")
        films = library.datasets.CheX_Dataset(
            imgpath="", csvpath=file, views=["*"], unique_patients=False
        )
        place = [films.pathologies.index(name) for name in NAMES]
        return {"films": len(films), **_sums(films.labels[:, place])}

    return read


def mimic(root: Path) -> Callable[[], Answer]:
    """Read metadata, split, labels and patients as a protocol does."""
    from lucency.config.sections import Source
    from lucency.core.manifest import FINDINGS
    from lucency.data.sources import SOURCES

    source = Source(source="mimic-cxr", root=str(root))

    def read() -> Answer:
        films = SOURCES["mimic-cxr"](source, findings=FINDINGS)
        return {"films": len(films), **_sums(films.label)}

    return read


def joined(root: Path) -> Callable[[], Answer]:
    """Join names of films with the paths of as many files, in another order."""
    from lucency.core.tables import join_films

    paths = np.array([f"{name}.jpg" for name in _names(root)], dtype=object)
    shuffled = np.random.default_rng(0).permutation(paths)
    image = np.array([path.removesuffix(".jpg") for path in paths])

    def join() -> Answer:
        row = join_films(image, shuffled, source="benchmark")
        return {"films": int((shuffled[row] == paths).sum())}

    return join


def _names(root: Path) -> list[str]:
    from lucency.data.collections.mimic import read_mimic_cxr

    return read_mimic_cxr(root, "").image.tolist()


def _sums(label: np.ndarray) -> Answer:
    """Return what two readers of one file must agree on."""
    return {"ones": int((label == 1).sum()), "zeros": int((label == 0).sum())}


def write_mimic(root: Path) -> None:
    """Write tables of MIMIC-CXR-JPG's size and columns; ids, labels and dates are invented."""
    random = np.random.default_rng(0)
    study = np.sort(
        np.concatenate([np.arange(STUDIES), random.integers(0, STUDIES, FILMS - STUDIES)])
    )
    more = random.integers(0, PATIENTS, STUDIES - PATIENTS)
    owner = np.sort(np.concatenate([np.arange(PATIENTS), more]))
    subject = 10_000_000 + owner[study]
    code = random.integers(0, 2**32, (FILMS, 5))
    ids = pd.DataFrame(
        {
            "dicom_id": ["-".join(f"{part:08x}" for part in row) for row in code.tolist()],
            "subject_id": subject,
            "study_id": 50_000_000 + study,
        }
    )
    metadata = ids.assign(
        **dict.fromkeys(OTHERS, "CHEST (PA AND LAT), invented"),
        ViewPosition=random.choice(["AP", "PA", "LATERAL", "LL", ""], FILMS),
        ViewCodeSequence_CodeMeaning="postero-anterior",
        StudyDate=[f"{year}0506" for year in (2110 + subject % 90).tolist()],
    )
    split = ids.assign(
        split=random.choice(["train", "validate", "test"], FILMS, p=[0.98, 0.01, 0.01])
    )
    states = random.choice(
        ["1.0", "0.0", "-1.0", ""], (STUDIES, len(STATED)), p=[0.1, 0.1, 0.05, 0.75]
    )
    labels = pd.DataFrame(states, columns=STATED)
    labels.insert(0, "study_id", 50_000_000 + np.arange(STUDIES))
    labels.insert(0, "subject_id", 10_000_000 + owner)
    tables = {"metadata": metadata, "split": split, "chexpert": labels}
    for name, table in tables.items():
        _write(table, root / f"mimic-cxr-2.0.0-{name}.csv.gz")
    people = pd.DataFrame({"subject_id": np.unique(subject), "gender": "F", "anchor_age": 60})
    (root / "hosp").mkdir()
    _write(people.assign(anchor_year=2150), root / "hosp" / "patients.csv.gz")


def _write(table: pd.DataFrame, file: Path) -> None:
    file.write_bytes(gzip.compress(table.to_csv(index=False).encode(), compresslevel=1))


def _in_a_process(case: str, root: Path) -> Answer:
    command = [sys.executable, __file__, "--case", case, "--root", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def summarise(rounds: list[dict[str, Answer]]) -> pd.DataFrame:
    """Return a row a case; raises ValueError where two readers of one file disagree."""
    rows, first_round = [], rounds[0]
    for name, first in first_round.items():
        row: dict[str, object] = {
            "case": name,
            "films": int(first["films"]),
            "rounds": len(rounds),
            "seconds": round(_median(rounds, name, "seconds"), 2),
            "processor_seconds": round(_median(rounds, name, "processor"), 2),
            "before_mb": round(max(one[name]["before_mb"] for one in rounds)),
            "peak_mb": round(max(one[name]["peak_mb"] for one in rounds)),
        }
        if name == CHEXPERT and RIVAL in first_round:
            agree(first_round[CHEXPERT], first_round[RIVAL])
            ratio = [one[RIVAL]["processor"] / one[CHEXPERT]["processor"] for one in rounds]
            row["torchxrayvision_s_processor_time_is"] = f"{np.median(ratio):.2f} x"
        if name in LIMITS:
            row["limit"] = "{:g} s, {} MB".format(*LIMITS[name])
        rows.append(row)
    return pd.DataFrame(rows)


def _median(rounds: list[dict[str, Answer]], case: str, what: str) -> float:
    return float(np.median([one[case][what] for one in rounds]))


def agree(ours: Answer, theirs: Answer) -> None:
    """Raise ValueError unless both readers have the same films and labels."""
    for name in ("films", "ones", "zeros"):
        if ours[name] != theirs[name]:
            raise ValueError(f"{name}: found {ours[name]} here and {theirs[name]} there")


STATED = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
NAMES = tuple(
    {"Pleural Effusion": "Effusion"}.get(name, name) for name in STATED if name != "No Finding"
)
CASES = {WRITE: tables, CHEXPERT: chexpert, RIVAL: torchxrayvision, MIMIC: mimic, JOIN: joined,
         PADCHEST: padchest}  # fmt: skip

if __name__ == "__main__":
    main()
