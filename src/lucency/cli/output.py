"""Answers of the commands in words, tables and JSON: runs, label files, balancing, leak checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from lucency.audit.checks import prediction_checks, run_checks, split_checks
from lucency.audit.checks.issue import count_serious, issue_table, unverified_table
from lucency.balance.imbalance import SIGNS, Change, cooccurrence, measure, no_finding, steps_text
from lucency.balance.methods import plan_of_labels
from lucency.cli.answers import estimate
from lucency.config.protocol import Protocol, find_protocol, read_protocol
from lucency.core.files import why_no_file, write_whole
from lucency.core.manifest import NO_FINDING, PARTS
from lucency.core.plan import Plan
from lucency.core.progress import printable
from lucency.core.stage import RECEIPT, Failures
from lucency.core.tables import Answer
from lucency.data.labels import USUAL_COLUMNS, Columns, read_labelled, read_labels
from lucency.evaluation.evaluate import MACRO
from lucency.explain.baselines import conclude_heatmaps
from lucency.explain.heatmap_results import HeatmapResults
from lucency.explain.localization import GAME
from lucency.pipeline import ablation_study, stages
from lucency.pipeline.run import Run, command_of, members, open_run_folder

WHOLE = {"instances", "labels", "labelsets"}
NOT_MADE = "not made"


def describe_imbalance(file: Path, *, figure: Path | None) -> Answer:
    """Return the imbalance measures of a label file; `figure` is an SVG file to draw to."""
    read = read_labels(file)
    found = measure(read.label, names=read.findings)
    if figure is not None:
        from lucency.report.imbalance_figures import draw_cooccurrence
        from lucency.report.rendering import standalone_svg

        order = np.argsort(-found.per_finding["count"].to_numpy(), kind="stable")
        share = cooccurrence(read.label[:, order])
        drawing = draw_cooccurrence({file.name: share}, [read.findings[k] for k in order])
        write_whole(figure, standalone_svg(drawing))
    return {
        **{str(name): _measured(name, value) for name, value in found.summary.items()},
        "no_finding": _no_finding(read.label, read.findings),
        "per_label": found.per_finding.set_index("finding").to_dict("index"),
    }


def describe_labels(file: Path, *, columns: Columns = USUAL_COLUMNS) -> Answer:
    """Return the films, patients, facts and findings of a label file with images and patients.

    `columns` are as of `read_labelled`.
    """
    films = read_labelled(file, **columns)
    a_patient = np.unique(films.patient, return_counts=True)[1]
    about: Answer = {
        "origin": films.origin,
        "films": len(films),
        "patients": len(a_patient),
        "films_per_patient": {
            "median": np.median(a_patient) if len(a_patient) else None,
            "most": a_patient.max(initial=0),
        },
    }
    for fact in ("view", "sex"):
        if fact in films.facts:
            about[fact] = films.facts[fact].value_counts(dropna=False).to_dict()
    age = films.facts["age"].dropna().to_numpy() if "age" in films.facts else np.empty(0)
    if len(age):
        quantiles = np.quantile(age.astype(np.float64), (0.0, 0.5, 1.0)).tolist()
        about["age"] = dict(zip(("lowest", "median", "highest"), quantiles, strict=True))
    return about | {
        "boxes": len(films.boxes),
        "no_finding": _no_finding(films.label, films.findings),
        "per_label": films.label_counts().to_dict("index"),
    }


def balance_from_labels(
    protocol: Protocol, *, labels: Path | None, figure: Path | None, table: Path | None
) -> Answer:
    """Return what a protocol's balancing does to a label table; no film is looked for.

    `figure` (SVG) and `table` (CSV) are files to write the counts and steps to. Raises ValueError
    for a protocol with variants, each of which has a plan of its own.
    """
    if protocol.variant:
        raise ValueError(
            "a protocol with variants has a plan for each: add --set 'variant=[]' --set 'seeds=[]' "
            "for the plan of its base"
        )
    films, plan, change = plan_of_labels(protocol, labels=labels)
    if table is not None:
        write_whole(table, steps_text(change.steps))
    if figure is not None:
        from lucency.report.imbalance_figures import draw_balancing
        from lucency.report.rendering import standalone_svg

        write_whole(figure, standalone_svg(draw_balancing(change)))
    return {"origin": films.origin, **answer_of(change, plan=plan, protocol=protocol)}


def answer_of(change: Change, *, plan: Plan, protocol: Protocol) -> Answer:
    """Return what a plan did to the films it was made of: totals, steps, measures, findings."""
    choices, totals = protocol.balance, change.totals.set_index("when").to_dict("index")
    shown = plan if choices.before_split else plan.take(plan.part == "train")
    measures = change.summary.set_index("measure").to_dict("index")
    return {
        "method": choices.method + (f", then {choices.then}" if choices.then != "none" else ""),
        "before_split": choices.before_split,
        "population": change.population,
        "films": totals["before"]["entries"],
        "entries": len(shown),
        "copies": (shown.copy > 0).sum(),
        "weighted": (shown.weight != 1).any(),
        "parts": {part: (plan.part == part).sum() for part in PARTS},
        "steps": change.steps.astype({"before": "Int64", "after": "Int64"}),
        "no_finding": {
            when: _share(row["no_finding"], row["entries"], row["unstated"])
            for when, row in totals.items()
        },
        "measures": {
            str(name): {when: _measured(str(name), value) for when, value in row.items()}
            for name, row in measures.items()
        },
        "per_label": change.counts.set_index("finding").to_dict("index"),
    }


def _measured(name: Any, value: float) -> float | int:
    """Return an imbalance measure, those that count something as whole numbers."""
    return int(value) if name in WHOLE else value


def _no_finding(label: Float32[np.ndarray, "n k"], names: tuple[str, ...]) -> Answer:
    """Return how many of n films, labelled with k findings, have none of them."""
    given = no_finding(label, names=names)
    return _share(int((given == 1).sum()), len(given), int(np.isnan(given).sum()))


def _share(films: int, entries: int, unstated: int) -> Answer:
    share = films / entries if entries else None
    return {"films": films, "share": share, "not_stated": unstated}


def in_table(answer: Answer) -> str:
    """Return what `answer_of` gives for people: steps and findings as tables, then measures."""
    early = ", before the split" if answer["before_split"] else ""
    lines = [f"origin: {answer['origin']}"] if "origin" in answer else []
    lines += [
        f"balancing: {answer['method']}{early}",
        f"counts are of {answer['population']}: {answer['films']:,} films, "
        f"{answer['entries']:,} entries after balancing, {answer['copies']:,} of them copies",
        "entries by part: " + ", ".join(f"{k} {v:,}" for k, v in answer["parts"].items()),
        "",
        *_aligned(STEP_HEADS, [_step(row) for row in answer["steps"]]),
        "",
        *_aligned(FINDING_HEADS, _findings(answer)),
        "",
    ]
    for name, title in MEASURES.items():
        ends = answer["measures"][name]
        lines.append(f"{title}: {_decimal(ends['before'])} before, {_decimal(ends['after'])} after")
    unstated = answer["no_finding"]["before"]["not_stated"]
    if unstated:
        lines.append(f"not known to have No Finding, for a label is not stated: {unstated:,} films")
    if answer["weighted"]:
        lines.append("after balancing a finding's entries count by their weight in the loss")
    lines += [f"folder: {answer['folder']}"] if "folder" in answer else []
    return "\n".join(lines) + "\n"


def _step(row: Answer) -> list[str]:
    about = ["" if row[k] is None else f"{row[k]:,}" for k in ("before", "after")]
    change = [f"{sign}{row[k]:,}" if row[k] else "" for k, sign in SIGNS.items()]
    return [f"{row['action']} {row['finding']}".strip(), *about, *change, f"{row['total']:,}"]


def _findings(found: Answer) -> list[list[str]]:
    """Return a row a finding, and one of No Finding with its share of the entries."""
    rows = []
    for name, row in found["per_label"].items():
        counts = [f"{row[k]:,.0f}" for k in ("before", "after")]
        rows.append([name, *counts, *(_decimal(row[f"irlbl_{k}"]) for k in ("before", "after"))])
    none = found["no_finding"]
    shares = [f"({_percent(none[k]['share'])})" for k in ("before", "after")]
    if NO_FINDING in found["per_label"]:
        return [*rows, ["  share of No Finding", *shares, "", ""]]
    counts = [f"{none[k]['films']:,}" for k in ("before", "after")]
    return [*rows, [NO_FINDING, *counts, "", ""], ["  its share", *shares, "", ""]]


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns, the first to the left and the others to the right."""
    width = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(wide) if place else cell.ljust(wide)
            for place, (cell, wide) in enumerate(zip(row, width, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]


def _decimal(value: float | None) -> str:
    return "not computable" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "no entries" if share is None else f"{100 * share:.1f} %"


STEP_HEADS = ("step", "before", "after", "added", "dropped", "total")
FINDING_HEADS = ("finding", "before", "after", "IRLbl before", "after")
MEASURES = {"mean_ir": "MeanIR", "cvir": "CVIR", "scumble": "SCUMBLE"}


def do_stage(run: Run, stage: str) -> Answer:
    """Do `stage` and all before it, and return its answer."""
    if run.protocol.variant:
        return ANSWERS_OF_VARIANTS[stage](run, ablation_study.make(run, stage))
    return ANSWERS[stage](run, stages.STAGES[stage](run))


def _of_prepare(run: Run, made: Any) -> Answer:
    counts = {"films": len(made.manifest), "rejected": len(made.rejected)}
    return {**counts, "folder": run.out / "prepared"}


def _of_split(run: Run, made: Any) -> Answer:
    parts = {part: (made == part).sum() for part in PARTS}
    return {"films": parts, "fingerprint": stages.split_name(run)}


def _of_balance(run: Run, made: Any) -> Answer:
    found = answer_of(stages.change(run), plan=made, protocol=run.protocol)
    return {**found, "folder": run.out / "plan"}


def _of_evaluate(run: Run, made: Any) -> Answer:
    ranking = made.ranking.set_index("network")["value"].round(4).to_dict()
    return {"macro AUC": ranking, "conclusion": made.conclusion, "tables": run.out / "evaluation"}


def _of_report(run: Run, made: Any) -> Answer:
    checks, missing = "could not run", Failures(run.out / "failed").reasons()
    if "checks" not in missing:
        counts = _severities(stages.issues(run))
        checks = f"{counts['serious']} serious, {counts['notes']} to note"
    conclusion = stages.evaluation(run).conclusion
    answer: Answer = {"conclusion": conclusion, "leak doctor": checks, "report": made}
    return answer | ({NOT_MADE: missing} if missing else {})


def _of_plans(_: Run, made: Any) -> Answer:
    return {name: f"{(plan.part == 'train').sum():,} entries" for name, plan in made.items()}


def concluded(folder: Path) -> Answer:
    """Return the conclusion that lies in a folder of tables, and the folder."""
    conclusion = (folder / "conclusion.txt").read_text(encoding="utf-8").strip()
    return {"conclusion": conclusion, "tables": folder}


ANSWERS: dict[str, Callable[[Run, Any], Answer]] = {  # to the stages of a run, by what they made
    "prepare": _of_prepare,
    "split": _of_split,
    "balance": _of_balance,
    "train": lambda _, made: made,
    "predict": lambda run, made: {p.network: run.out / "predictions" / p.network for p in made},
    "evaluate": _of_evaluate,
    "check": lambda run, made: {**_severities(made), "folder": run.out / "check"},
    "report": _of_report,
}
ANSWERS_OF_VARIANTS = ANSWERS | {
    "balance": _of_plans,
    "train": lambda _, made: {f"{k}/{name}": v[name] for k, v in made.items() for name in v},
    "predict": lambda run, _: {name: run.out / "variants" / name for name, _ in members(run)},
    "evaluate": lambda run, _: concluded(run.out / "evaluation"),
    "report": lambda run, made: {**concluded(run.out / "evaluation"), "report": made},
}


def localised(found: HeatmapResults, folder: Path) -> Answer:
    """Return the scores of a network's heat maps; ValueError where nothing was scored."""
    pointing = found.scores.pointing
    if not len(pointing):
        raise ValueError(f"nothing could be localised: {'; '.join(found.remarks)}")
    macro = pointing.loc[(pointing["finding"] == MACRO) & (pointing["measure"] == GAME)]
    hits = {
        row["method"]: estimate(row["value"], row["low"], row["high"])
        for row in macro.to_dict("records")
    }
    return {
        "network": found.network,
        "pointing game": hits,
        "conclusion": conclude_heatmaps(found.scores.baselines, boxes=found.boxes),
        "remarks": found.remarks,
        "tables": folder,
    }


def find_issues(
    what: Path | None,
    *,
    lists: Mapping[str, Path],
    labels: Path | None,
    scale: str,
    changes: Sequence[str] | None,
    columns: Columns = USUAL_COLUMNS,
) -> tuple[pd.DataFrame, int]:
    """Return the issues as audit.checks.issue.issue_table does, and how many checks ran.

    `what` is a protocol (.toml), a run's folder, a predictions.npz, a table of predictions, or None
    for `lists` alone, which map parts to files of image names; `labels` is the label file of a
    table or of lists, `columns` are as of `read_labelled`. Raises ValueError when these do not fit
    together.
    """
    what = None if what is None else _find_checked(what)
    if what is not None and (what.is_dir() or what.suffix in (".toml", ".npz")):
        if lists or labels or scale != "probability":
            raise ValueError(
                f"{what} brings its own films and scores: expected it alone, without --labels, "
                "--scale and lists"
            )
        return _own(what, changes)
    if labels is None:
        raise ValueError("expected --labels FILE: it says whose film each is")
    if what is None:
        if changes or scale != "probability":
            raise ValueError("lists are names alone: expected neither --set nor --scale")
        if not {"train", "test"} <= set(lists):
            given = ", ".join(lists) or "nothing"
            raise ValueError(f"found lists for {given}; expected --train and --test, maybe --val")
        return issue_table(run_checks.check_lists(lists, labels=labels, columns=columns)), len(
            split_checks.CHECKS
        )
    if changes:
        raise ValueError("--set changes a protocol: found a table, expected no --set")
    unverified = unverified_table(what, labels=labels, scale=scale, columns=columns)
    of_split = len(split_checks.CHECKS) if lists else 1  # without lists, whose films these are
    found = run_checks.check_external(unverified, lists, labels=labels, columns=columns)
    return issue_table(found), len(prediction_checks.CHECKS) + of_split


def _find_checked(what: Path) -> Path:
    what = find_protocol(what)
    if not what.exists() and what.suffix != ".toml":
        raise ValueError(
            f"{what}: {_nothing(what)}; expected a protocol, a run's folder, a "
            "predictions.npz or a table of predictions"
        )
    return what


def _nothing(place: Path) -> str:
    return why_no_file(place) if place.is_symlink() else "no such file or folder"


def issues_in_words(table: pd.DataFrame, *, checks: int) -> str:
    """Return the issues for people: a line each, what to do below it, and a last line.

    Examples that the message names are not repeated.
    """
    lines = []
    for row in table.to_dict("records"):
        unnamed = [one for one in row["examples"].split("|") if one and one not in row["message"]]
        examples = f" (such as {', '.join(unnamed)})" if unnamed else ""
        cases = f", {row['count']:,} cases" if row["count"] > 1 else ""
        lines.append(f"{row['severity']}: {row['message']}{examples}")
        lines.append(f"  {row['check']}{cases}: {row['remedy']}")
    counts = _severities(table)
    found = f"{counts['serious']} serious, {counts['notes']} to note" if lines else "nothing found"
    return "\n".join([*map(printable, lines), f"{found}, by {checks} checks"]) + "\n"


def issues_in_json(table: pd.DataFrame, *, checks: int) -> Answer:
    """Return the issues for programs, examples as lists."""
    examples = [[one for one in text.split("|") if one] for text in table["examples"]]
    return {"checks": checks, **_severities(table), "issues": table.assign(examples=examples)}


def _severities(table: pd.DataFrame) -> dict[str, int]:
    serious = count_serious(table)
    return {"serious": serious, "notes": len(table) - serious}


def _own(what: Path, changes: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
    if what.suffix == ".toml":
        found = run_checks.check_protocol(read_protocol(what, changes=changes))
        return issue_table(found), len(split_checks.CHECKS) + len(run_checks.BEFORE)
    if changes:
        raise ValueError(f"--set changes a protocol, and {what} is done: check a .toml file")
    if what.suffix == ".npz":
        return issue_table(run_checks.check_predictions_file(what)), len(prediction_checks.CHECKS)
    run = open_run_folder(what)
    predicted = [what / "predictions" / network.name for network in run.protocol.network]
    if not all((place / RECEIPT).is_file() for place in (*predicted, what / "evaluation")):
        raise ValueError(
            f"{what} is not evaluated yet: expected a finished run; check its protocol.toml alone, "
            f"or finish it with {command_of(what)}"
        )
    return stages.issues(run), run_checks.NUMBER_OF_CHECKS
