"""Which stage grows worse than the films? Seconds, peak memory and slope at 10 k, 100 k and 1 M.

Usage: python benchmarks/scale.py [--films 10000 100000] [--stages manifest …] [--runs 3]
[--work FOLDER].
Films are hard links to 300 phantoms of 64 px, prepared at 32 px; patients, names and labels are
those of ChestX-ray14's label file, whole patients in a random order and, beyond 112,120 films,
again under other numbers: so joint frequencies are real. No network is trained: logits and 1,024
features a film are invented, and a network's place is taken by one that looks them up. Linked films
are alike, which real ones are not, so the leak doctor is shown mixes of two of them.

Every cell is a process of its own. `seconds` are the stage's, after it has read what earlier stages
wrote (`opened_seconds`, `opened_processor_seconds`); `peak_mb` is the process's or a worker's,
mapped files included, `private_mb` without these. `slope` is that of seconds from the next smaller
size, on logarithmic scales: 1 is linear. Where other programs hold the cores, `processor_slope` is
the one to read, that of processor seconds. Stages need those before them in the same --work, which
is kept, so one size and one stage can be run at a time; results are joined with those of the day.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from lucency.core.manifest import Prepared
    from lucency.core.predictions import Predictions
    from lucency.pipeline.run import Run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ENTRIES = "Data_Entry_2017_v2020.csv"
SIZES = (10_000, 100_000)  # a million takes an hour and 12 GB: --films 1000000
PHANTOMS, PIXELS, SIDE = 300, 64, 32
DIMENSIONS, SEPARATION, QUERIES = 1024, 1.2, 256
NETWORK = "densenet121"
SMALLEST_CROP = 0.75  # of a film's side
SLOPES = {"seconds": "slope", "processor_seconds": "processor_slope"}
Work = Callable[[], None]


def main() -> None:
    """Measure the chosen cells, print the table and write it to benchmarks/results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--films", type=int, nargs="+", default=SIZES)
    parser.add_argument("--stages", nargs="+", default=tuple(STAGES), choices=tuple(STAGES))
    parser.add_argument("--runs", type=int, default=1, help="of which medians are taken")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lucency-scale")
    parser.add_argument("--labels", type=Path, default=ROOT.parent / "shared" / "nih" / ENTRIES)
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    choices = parser.parse_args()
    place = choices.work / str(choices.films[0])
    if choices.cell:
        print(json.dumps(measure(choices.stages[0], place)))
        return
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = RESULTS / f"scale-{cores}-{datetime.date.today()}.csv"
    for films in sorted(choices.films):
        lay_out(choices.work, films, choices.labels)
        for stage in (one for one in STAGES if one in choices.stages):
            load = round(os.getloadavg()[0], 1)
            runs = [_in_a_process(stage, films, choices.work) for _ in range(choices.runs)]
            row = {"stage": stage, "films": films, **pd.DataFrame(runs).median(), "load": load}
            table = joined(file, pd.DataFrame([row]))
            print(table.loc[(table["stage"] == stage)].to_string(index=False), flush=True)
            table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def joined(file: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the day's table with these rows in place of what it held of them, slopes anew."""
    held = pd.read_csv(file) if file.exists() else rows.iloc[:0]
    table = pd.concat(
        [rows, held.drop(columns=list(SLOPES.values()), errors="ignore")], ignore_index=True
    )
    table = table.drop_duplicates(["stage", "films"])
    table["order"] = [list(STAGES).index(name) for name in table["stage"]]
    table = table.sort_values(["order", "films"]).drop(columns="order")
    grown = table.groupby("stage")[["films", *SLOPES]].transform(lambda one: np.log(one).diff())
    return table.assign(
        **{name: (grown[of] / grown["films"]).round(2) for of, name in SLOPES.items()}
    )


def _in_a_process(stage: str, films: int, work: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--cell", "--work", str(work)]
    command += ["--films", str(films), "--stages", stage]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure(stage: str, place: Path) -> dict[str, float]:
    """Return what a stage takes in this process."""
    with PrivateMemory() as private:
        opened, before = time.perf_counter(), sum(os.times()[:4])
        work = STAGES[stage](place)
        started, spent = time.perf_counter(), sum(os.times()[:4])
        before = spent - before
        work()
        seconds, spent = time.perf_counter() - started, sum(os.times()[:4]) - spent
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    page = place / "report.html"
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(spent, 2),
        "opened_seconds": round(started - opened, 2),
        "opened_processor_seconds": round(before, 2),
        "peak_mb": round(peak / 1024),
        "private_mb": round(private.peak / 1024),
        "page_mb": round(page.stat().st_size / 1e6, 2) if stage == "report" else float("nan"),
    }


class PrivateMemory:
    """The most memory of a process that is no file's, in kB, looked at 20 times a second."""

    peak = 0

    def __enter__(self) -> PrivateMemory:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists() and not self._ended.wait(0.05):
            found = re.search(r"RssAnon:\s+(\d+)", status.read_text())
            self.peak = max(self.peak, int(found[1]) if found else 0)


def lay_out(work: Path, films: int, labels: Path) -> None:
    """Write a label file and the links of so many films, unless they are there."""
    root = work / str(films) / "films"
    if (root / ENTRIES).exists():
        return
    if not labels.is_file():
        raise SystemExit(f"{labels} is not there: name ChestX-ray14's label file by --labels")
    shutil.rmtree(root, ignore_errors=True)
    (root / "images").mkdir(parents=True)
    pictures = sorted((phantoms(work) / "images").glob("*.png"))
    entries = entries_of(pd.read_csv(labels, dtype=str), films)
    for place, name in enumerate(entries["Image Index"].tolist()):
        os.link(pictures[place % len(pictures)], root / "images" / name)
    entries.to_csv(root / ENTRIES, index=False)


def phantoms(work: Path) -> Path:
    """Return the folder of the films that all others are links to."""
    from lucency.phantom.dataset import write_phantom

    folder = work / "phantoms"
    if not (folder / ENTRIES).exists():
        write_phantom(folder, films=PHANTOMS, size=PIXELS, workers=os.cpu_count() or 1)
    return folder


def entries_of(published: pd.DataFrame, films: int) -> pd.DataFrame:
    """Return rows of whole patients in a random order, repeated under other patients' numbers."""
    patient = published["Patient ID"].to_numpy(dtype=np.int64)
    place = np.random.default_rng(0).permutation(patient.max() + 1)[patient]
    order = np.argsort(place, kind="stable")
    often = -(-films // len(published))
    number = np.concatenate([patient[order] + turn * (patient.max() + 1) for turn in range(often)])
    shuffled = published.iloc[order]
    entries = pd.concat([shuffled] * often, ignore_index=True)
    following = entries["Image Index"].str[8:]
    entries["Image Index"] = pd.Series(number).map("{:08d}".format) + following
    entries["Patient ID"] = number
    return entries.iloc[:films]


def a_run(place: Path) -> Run:
    """Return the run: cap and copy, split by patient, one network whose training is left out."""
    from lucency.config.protocol import parse_protocol
    from lucency.pipeline.run import open_run

    copies = {"Hernia": 6, "Pneumonia": 3, "Fibrosis": 2, "Edema": 2}  # as in the demo
    protocol = {
        "name": "scale",
        "data": {"source": "nih", "root": str(place / "films"), "labels": ENTRIES},
        "preparation": {"size": SIDE},
        "split": {"method": "patient"},
        "balance": {
            "method": "cap-and-copy",
            "cap": [{"finding": "No Finding", "films": int(place.name) // 4}],
            "copy_plan": [{"finding": name, "copies": count} for name, count in copies.items()],
        },
        "network": [{"name": NETWORK, "weights": "random"}],
    }
    return open_run(parse_protocol(protocol, name="scale"), out=place / "run")


def manifest(place: Path) -> Work:
    """Labels read, films found, the manifest written."""
    from lucency.pipeline import stages

    run = a_run(place)
    shutil.rmtree(run.out / "manifest", ignore_errors=True)
    return lambda: _done(stages.labelled_films(run))


def prepare(place: Path) -> Work:
    """Films decoded and written in shards, in all workers."""
    from lucency.pipeline import stages

    run = a_run(place)
    stages.labelled_films(run)
    for name in ("prepared", "prepared.partial"):
        shutil.rmtree(run.out / name, ignore_errors=True)
    return lambda: _done(stages.prepared(run))


def split(place: Path) -> Work:
    """The parts by patient."""
    from lucency.pipeline import stages

    run = a_run(place)
    stages.prepared(run)
    shutil.rmtree(run.out / "split", ignore_errors=True)
    return lambda: _done(stages.parts(run))


def plan(place: Path) -> Work:
    """The plan by cap and copy."""
    from lucency.pipeline import stages

    run = a_run(place)
    stages.parts(run)
    shutil.rmtree(run.out / "plan", ignore_errors=True)
    return lambda: _done(stages.plan(run))


def feed(place: Path) -> Work:
    """One epoch of training: pictures with their copies' changes, labels and weights."""
    import torch

    from lucency.models import film_loader
    from lucency.pipeline import stages

    run = a_run(place)
    whole = stages.plan(run)
    train = whole.take(whole.part == "train")
    films = film_loader.Films(prepared=stages.prepared(run), plan=train, copies=0)

    def epoch() -> None:
        batches = film_loader.shuffled_batches(len(train), batch=32, seed=0, epoch=0)
        fed = film_loader.feed(films, batches=batches, device=torch.device("cpu"))
        for batch, _ in zip(batches, fed, strict=True):
            films.targets(batch)

    return epoch


def features(place: Path) -> Work:
    """Features of the training films, written block by block."""
    from lucency.core.plan import originals
    from lucency.models.features import extract
    from lucency.pipeline import stages

    run = a_run(place)
    films = stages.prepared(run)
    shown = originals(films.manifest.label).take(stages.training_films(run))
    folder = place / "features"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    network, nothing = looked_up(shown.label), lambda *_: None
    return lambda: extract(network, prepared=films, plan=shown, folder=folder, progress=nothing)


def predict(place: Path) -> Work:
    """Predictions of validation and test films from stored logits, written and read again."""
    from lucency.core.predictions import load_predictions, save_predictions
    from lucency.models import inference
    from lucency.pipeline import stages

    run = a_run(place)
    seen = stages.plan(run)
    seen, films = seen.take(seen.part != "train"), stages.prepared(run)
    network = looked_up(seen.label)

    def work() -> None:
        found = inference.predict(network, prepared=films, plan=seen)
        save_predictions(found, place / "predictions.npz")
        del found
        load_predictions(place / "predictions.npz")

    return work


def evaluate(place: Path) -> Work:
    """Thresholds, all metrics with 1,000 resamples, calibration and subgroups."""
    from lucency.core.tables import save_tables
    from lucency.evaluation import summary
    from lucency.pipeline import stages

    run = a_run(place)
    films = stages.prepared(run).manifest
    predictions, rows = predicted(place), stages.training_films(run)

    def work() -> None:
        found = summary.evaluate_networks(
            [predictions.of("test")],
            thresholds=summary.fit_thresholds(
                [predictions.of("val")], choices=run.protocol.evaluation
            ),
            facts=films.facts.set_axis(films.image),
            prevalence=np.nanmean(films.label[rows].astype(np.float64), axis=0),
            resamples=1000,
            seed=0,
        )
        (place / "evaluation").mkdir(exist_ok=True)
        save_tables(found, place / "evaluation")

    return work


def check(place: Path) -> Work:
    """The leak doctor: parts, near duplicates, predictions."""
    from dataclasses import replace

    from lucency.audit.checks.run_checks import check_run, save_issues
    from lucency.evaluation.summary import load_evaluation
    from lucency.pipeline import stages

    run = a_run(place)
    films, seen, found = (
        stages.prepared(run),
        stages.plan(run),
        load_evaluation(place / "evaluation"),
    )
    several: Any = Mixed(films)
    unlike, predictions = replace(films, pixels=several), predicted(place)

    def work() -> None:
        issues = check_run(
            run.protocol,
            prepared=unlike,
            plan=seen,
            missing=[],
            predictions=[predictions],
            thresholds=found.thresholds,
            scores=found.metrics,
        )
        (place / "check").mkdir(exist_ok=True)
        save_issues(issues, place / "check")

    return work


def index(place: Path) -> Work:
    """The retrieval index of all films in 1,024 dimensions."""
    from lucency.core.predictions import Features
    from lucency.ensemble import retrieval
    from lucency.pipeline import stages

    run = a_run(place)
    rows, predictions = stages.training_films(run), predicted(place)
    films = stages.prepared(run).manifest.take(rows)
    train = Features(
        source=NETWORK,
        split=predictions.split,
        findings=films.findings,
        image=films.image,
        patient=films.patient,
        part=np.full(len(films), "train"),
        label=films.label,
        feature=np.load(place / "features" / "feature.npy", mmap_mode="r"),
    )

    return lambda: retrieval.save_index(train, predictions.features, folder=place / "index")


def search(place: Path) -> Work:
    """The index opened, and 256 queries at once."""
    from lucency.ensemble import retrieval

    def work() -> None:
        found = retrieval.load_index(place / "index")
        query = np.random.default_rng(1).normal(size=(QUERIES, DIMENSIONS)).astype(np.float32)
        nobody = np.full(QUERIES, retrieval.NOBODY)
        retrieval.search(found, query, patient=nobody, top=10)

    return work


def report(place: Path) -> Work:
    """The page, without the chapters that need a trained network's heat maps and ensembles."""
    from lucency.audit.checks.run_checks import NUMBER_OF_CHECKS, load_issues
    from lucency.core.stage import Failures
    from lucency.evaluation.leakage_inflation import StudyComparison
    from lucency.evaluation.summary import load_evaluation
    from lucency.pipeline import stages
    from lucency.report.run_page import Experiment, Gallery, write_report

    run = a_run(place)
    films, seen, predictions = stages.prepared(run), stages.plan(run), predicted(place)
    found = load_evaluation(place / "evaluation")
    one = {"network": NETWORK, "parameters": 1, "weights": "random", "provenance": ""}
    one |= {"epochs": 1, "kept_epoch": 1, "minutes": 1.0, "films_per_second": 1.0, "device": "cpu"}
    losses = ["train_loss", "val_loss", "val_auc", "train_accuracy", "val_accuracy"]
    more = ["train_pooled_auc", "val_pooled_auc", "learning_rate", "films_per_second", "seconds"]
    history = pd.DataFrame([{"epoch": 1, "step": 1, **dict.fromkeys([*losses, *more], 0.5)}])

    def work() -> None:
        experiment = Experiment(
            protocol=run.protocol,
            manifest=stages.manifest(run),
            prepared=films,
            plan=seen,
            change=stages.change(run),
            gallery=Gallery([("film", films.pixels[0])], []),
            predictions=[predictions],
            histories={NETWORK: history},
            networks=pd.DataFrame([one]),
            evaluation=found,
            issues=load_issues(place / "check"),
            checks=NUMBER_OF_CHECKS,
            study=StudyComparison(),
            heatmaps=None,
            audit=None,
            ensembles=None,
        )
        write_report(experiment, file=place / "report.html", failures=Failures(place / "failed"))

    return work


def predicted(place: Path) -> Predictions:
    """Return what the stage `predict` has written."""
    from lucency.core.predictions import load_predictions

    return load_predictions(place / "predictions.npz")


def looked_up(label: np.ndarray) -> Any:
    """Return what stands for a classifier: its logits were made before, its features are noise."""
    import torch

    from lucency.core.manifest import FINDINGS, Preparation
    from lucency.evaluation.calibration import no_recalibration

    class Stored(torch.nn.Module):
        """A network that gives the next rows of what is stored, in the order of the films."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.at = torch.nn.Linear(1, 1), 0
            self.random = np.random.default_rng(0)
            noise = self.random.standard_normal(label.shape, dtype=np.float32)
            self.logit = noise + np.float32(SEPARATION) * np.nan_to_num(label)

        def embed(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows = slice(self.at, self.at + len(pictures))
            self.at = rows.stop
            shape = (len(pictures), DIMENSIONS)
            feature = self.random.standard_normal(shape, dtype=np.float32)
            return torch.from_numpy(feature), torch.from_numpy(self.logit[rows])

    class Classifier:
        name, findings, split, protocol = NETWORK, FINDINGS, "stored", {}
        preparation, recalibration = Preparation(size=SIDE), no_recalibration(len(FINDINGS))
        network = Stored()

    return Classifier()


class Mixed:
    """Prepared films that are links to the same few, as mixes of two crops, unlike film by film."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, films: Prepared) -> None:
        self.few = np.asarray(films.pixels[:PHANTOMS])
        self.shape = films.pixels.shape
        random, count = np.random.default_rng(0), len(films.manifest)
        self.pair = random.integers(0, len(self.few), (count, 2))
        self.length = random.integers(int(SIDE * SMALLEST_CROP), SIDE + 1, (count, 2))
        self.corner = random.random((count, 2, 2)) * (SIDE + 1 - self.length)[..., None]
        self.share = random.uniform(0.3, 0.7, count)

    def __len__(self) -> int:
        return len(self.share)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, (int, np.integer)):
            return self._film(int(key))
        return np.stack([self._film(row) for row in np.arange(len(self))[key].tolist()])

    def _film(self, row: int) -> np.ndarray:
        import cv2

        crops = []
        for place in (0, 1):
            (top, left), side = self.corner[row, place].astype(int), self.length[row, place]
            crop = self.few[self.pair[row, place], top : top + side, left : left + side]
            crops.append(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
        share = float(self.share[row])
        return cv2.addWeighted(crops[0], share, crops[1][::-1], 1 - share, 0.0)


def _done(_: object) -> None:
    """Let a stage's value go."""


STAGES: dict[str, Callable[[Path], Work]] = {
    "manifest": manifest,
    "prepare": prepare,
    "split": split,
    "plan": plan,
    "feed": feed,
    "features": features,
    "predict": predict,
    "evaluate": evaluate,
    "check": check,
    "index": index,
    "search": search,
    "report": report,
}


if __name__ == "__main__":
    main()
