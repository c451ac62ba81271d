"""The ablation: a protocol's variants, each trained at every seed on the same films, and compared.

Every member is a run of its own below `variants/`, so a killed ablation goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.audit.checks.issue import no_scores
from lucency.audit.checks.run_checks import load_issues
from lucency.config.protocol import BASE
from lucency.core.files import write_table, write_whole
from lucency.core.manifest import read_table
from lucency.core.predictions import Predictions
from lucency.core.progress import say
from lucency.core.stage import discard_outdated, fingerprint_of, produce
from lucency.evaluation.ablation_effects import ablate, conclude_ablation
from lucency.pipeline import stages
from lucency.pipeline.run import Member, Run, count_epochs, kept, members, read_history

TEXT = ("network", "variant", "finding", "metric")
RULE = "Behrens-Fisher over patients and seeds"  # what was compared by another is compared anew


def predictions(run: Run) -> dict[str, dict[str, list[Predictions]]]:
    """Return the predictions by variant and network, one a seed."""
    _check_networks(run)
    trained: dict[str, dict[str, list[Predictions]]] = {}
    for (name, _), member in _in_turn(run):
        for found in stages.predictions(member):
            trained.setdefault(name, {}).setdefault(found.network, []).append(found)
    return trained


@kept
def comparison(run: Run) -> pd.DataFrame:
    """Return the table of all variants against the base."""
    several = predictions(run)
    made = {
        _title(key): {
            network.name: fingerprint_of(member.out / "predictions" / network.name)
            for network in member.protocol.network
        }
        for key, member in members(run).items()
    }
    inputs = {
        "evaluation": run.protocol.evaluation.scoring, "predictions": made, "rule": RULE,
    }  # fmt: skip
    discard_outdated(run.out / "evaluation", inputs=inputs)
    write = partial(_write_comparison, run, several)
    folder = produce(run.out / "evaluation", inputs=inputs, write=write)
    return read_table(folder / "ablation.csv", text=TEXT)


def _write_comparison(
    run: Run, several: dict[str, dict[str, list[Predictions]]], folder: Path
) -> None:
    say(f"Comparing {len(several) - 1} variants with the base")
    rule = run.protocol.evaluation
    table = ablate(several, threshold=rule.threshold, recall=rule.recall, **run.draws)
    write_table(table, folder / "ablation.csv")
    write_table(_costs(run), folder / "costs.csv")
    write_whole(folder / "conclusion.txt", conclude_ablation(table) + "\n")


@kept
def issues(run: Run) -> pd.DataFrame:
    """Return what the leak doctor finds in the base at its first seed, as a table."""
    member, predicted = next(iter(members(run).values())), predictions(run)[BASE]
    inputs = {
        **member.fingerprints("plan"),
        "predictions": [fingerprint_of(member.out / "predictions" / name) for name in predicted],
    }
    first = [several[0] for several in predicted.values()]
    unscored = {"thresholds": pd.DataFrame({"network": [], "split": []}), "scores": no_scores()}
    write = partial(stages.write_issues, member, run.protocol, first, unscored)
    return load_issues(produce(run.out / "check", inputs=inputs, write=write))


def report(run: Run) -> Path:
    """Return the page that shows it all."""
    table, found = comparison(run), issues(run)
    inputs = run.fingerprints("evaluation", "check")
    discard_outdated(run.out / "report", inputs=inputs)
    write = partial(_write_report, run, table, found)
    return produce(run.out / "report", inputs=inputs, write=write) / "report.html"


def _write_report(run: Run, table: pd.DataFrame, found: pd.DataFrame, folder: Path) -> None:
    from lucency.report.study_pages import write_ablation_page

    say("Writing the report")
    evaluation = run.out / "evaluation"
    write_ablation_page(
        run.protocol,
        seen=_seen(run),
        issues=found,
        table=table,
        costs=read_table(evaluation / "costs.csv", text=TEXT),
        conclusion=(evaluation / "conclusion.txt").read_text(encoding="utf-8").strip(),
        file=folder / "report.html",
    )


def _check_networks(run: Run) -> None:
    """Refuse a network that cannot be built before the first is trained."""
    for member in members(run).values():
        stages.check_networks(member)


def _seen(run: Run) -> str:
    """Return what films there were, in a sentence."""
    films, part = stages.prepared(run).manifest, stages.parts(run)
    test = films.take(np.flatnonzero(part == "test"))
    patients = len(np.unique(test.patient))
    return (
        f"{films.origin}. {len(films):,} were used, {len(test):,} of {patients:,} patients to test"
    )


def _in_turn(run: Run) -> Iterator[tuple[Member, Run]]:
    """Yield the members, saying which one is at work."""
    several = members(run)
    for number, (key, member) in enumerate(several.items(), start=1):
        if not (member.out / "predictions").exists():
            say(f"{_title(key)}: {number} of {len(several)}")
        yield key, member


def _costs(run: Run) -> pd.DataFrame:
    """Return what each member's training saw and took: entries, epochs, minutes."""
    rows = []
    for (name, seed), member in members(run).items():
        seen = stages.plan(member)
        entries = int((seen.part == "train").sum())
        for network, folder in stages.classifiers(member).items():
            history = read_history(folder)
            minutes = float(history["seconds"].iloc[-1]) / 60
            rows.append((name, seed, network, entries, count_epochs(history), minutes))
    columns = ["variant", "seed", "network", "entries", "epochs", "minutes"]
    return pd.DataFrame(rows, columns=columns)


def _title(key: Member) -> str:
    return f"{key[0]}/seed-{key[1]}"


OWN = {"evaluate": comparison, "check": issues, "report": report}


def make(run: Run, name: str) -> Any:
    """Do the stage `name` for all variants and seeds; return what it makes, by member."""
    if name in ("prepare", "split"):
        return stages.STAGES[name](run)
    if name in OWN:
        return OWN[name](run)
    if name != "balance":
        _check_networks(run)
    return {_title(key): stages.STAGES[name](member) for key, member in _in_turn(run)}
