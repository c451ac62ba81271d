"""The ablation: a protocol's variants, each trained at every seed on the same films, and compared.

Every member is a run of its own below `variants/`, so a killed ablation goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.audit.checks.run_checks import check_run, load_issues, save_issues
from lucency.audit.checks.unverified import no_scores
from lucency.config.protocol import BASE
from lucency.config.sections import THUMBNAIL
from lucency.core.manifest import read_table
from lucency.core.predictions import Predictions
from lucency.core.progress import say
from lucency.core.stage import fingerprint_of, produce
from lucency.evaluation.ablation_effects import ablate, conclude_ablation
from lucency.pipeline import stages
from lucency.pipeline.run import Member, Run, kept, members

TEXT = ("network", "variant", "finding", "metric")


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
    several, evaluation = predictions(run), run.protocol.evaluation
    made = {
        _title(key): {
            network.name: fingerprint_of(member.out / "predictions" / network.name)
            for network in member.protocol.network
        }
        for key, member in members(run).items()
    }
    inputs = {"evaluation": evaluation.model_dump(), "predictions": made}

    def write(folder: Path) -> None:
        say(f"Comparing {len(several) - 1} variants with the base")
        draws = {"resamples": evaluation.resamples, "seed": evaluation.seed}
        table = ablate(several, threshold=evaluation.threshold, recall=evaluation.recall, **draws)
        table.to_csv(folder / "ablation.csv", index=False)
        _costs(run).to_csv(folder / "costs.csv", index=False)
        (folder / "conclusion.txt").write_text(conclude_ablation(table) + "\n", encoding="utf-8")

    folder = produce(run.out / "evaluation", inputs=inputs, write=write)
    return read_table(folder / "ablation.csv", text=TEXT)


@kept
def issues(run: Run) -> pd.DataFrame:
    """Return what the leak doctor finds in the base at its first seed, as a table."""
    member, predicted = next(iter(members(run).values())), predictions(run)[BASE]
    inputs = {
        "plan": fingerprint_of(member.out / "plan"),
        "predictions": [fingerprint_of(member.out / "predictions" / name) for name in predicted],
    }

    def write(folder: Path) -> None:
        say("Looking for leaks")
        table = read_table(run.source / "manifest" / "missing.csv", text=("image",))
        found = check_run(
            run.protocol,
            prepared=stages.prepared(member),
            plan=stages.plan(member),
            missing=table["image"].tolist(),
            predictions=[several[0] for several in predicted.values()],
            thresholds=pd.DataFrame({"network": [], "split": []}),
            scores=no_scores(),
        )
        save_issues(found, folder)

    return load_issues(produce(run.out / "check", inputs=inputs, write=write))


def report(run: Run) -> Path:
    """Return the page that shows it all."""
    from lucency.report.study_pages import write_ablation_page

    table, found, evaluation = comparison(run), issues(run), run.out / "evaluation"
    inputs = {name: fingerprint_of(run.out / name) for name in ("evaluation", "check")}

    def write(folder: Path) -> None:
        say("Writing the report")
        write_ablation_page(
            run.protocol,
            seen=_seen(run),
            issues=found,
            table=table,
            costs=read_table(evaluation / "costs.csv", text=TEXT),
            conclusion=(evaluation / "conclusion.txt").read_text(encoding="utf-8").strip(),
            file=folder / "report.html",
        )

    return produce(run.out / "report", inputs=inputs, write=write) / "report.html"


def _check_networks(run: Run) -> None:
    """Refuse a network that cannot be built before the first is trained."""
    from lucency.models.training import check_choice

    root = Path(run.protocol.data.root)
    for protocol in (member.protocol for member in members(run).values()):
        for choice in protocol.network:
            check_choice(choice, root=root, frozen=protocol.training_of(choice.name).frozen)
        if protocol.balance.features.name != THUMBNAIL:
            check_choice(protocol.balance.features, root=root)


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
            history = pd.read_csv(folder / "history.csv")
            minutes = float(history["seconds"].iloc[-1]) / 60
            rows.append((name, seed, network, entries, len(history), minutes))
    columns = ["variant", "seed", "network", "entries", "epochs", "minutes"]
    return pd.DataFrame(rows, columns=columns)


def _title(key: Member) -> str:
    return f"{key[0]}/seed-{key[1]}"


OWN = {"evaluate": comparison, "check": issues, "report": report}


def make(run: Run, name: str) -> Any:
    """Do the stage `name` for all variants and seeds; return what it makes, by member."""
    if name in ("prepare", "split"):
        return stages.make(run, name)
    if name in OWN:
        return OWN[name](run)
    if name != "balance":
        _check_networks(run)
    return {_title(key): stages.make(member, name) for key, member in _in_turn(run)}
