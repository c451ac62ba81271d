"""Answers of the commands in words, tables and JSON: stages of a run, label files, balancing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency.audit.checks.issue import count_serious
from lucency.balance.imbalance import Change, cooccurrence, measure, no_finding, steps_text
from lucency.balance.methods import plan_of_labels
from lucency.config.protocol import Protocol
from lucency.core.manifest import NO_FINDING, PARTS
from lucency.core.plan import Plan
from lucency.core.progress import say
from lucency.core.stage import Failures, write_atomically
from lucency.core.tables import Answer
from lucency.data.labels import read_labelled, read_labels
from lucency.evaluation.evaluate import MACRO
from lucency.explain.baselines import conclude_heatmaps
from lucency.explain.heatmap_results import HeatmapResults
from lucency.explain.localization import GAME
from lucency.pipeline import ablation_study, stages
from lucency.pipeline.run import Run, members

WHOLE = {"instances", "labels", "labelsets"}
NOT_MADE = "not made"


def describe_imbalance(file: Path, *, figure: Path | None) -> Answer:
    """Return the imbalance measures of a label file; `figure` is an SVG file to draw to."""
    check_figure(figure)
    read = read_labels(file)
    if read.left_out:
        say(f"{file}: left out are {', '.join(read.left_out)}; read are {', '.join(read.findings)}")
    found = measure(read.label, names=read.findings)
    if figure is not None:
        from lucency.report.imbalance_figures import draw_cooccurrence
        from lucency.report.rendering import standalone_svg

        order = np.argsort(-found.per_finding["count"].to_numpy(), kind="stable")
        share = cooccurrence(read.label[:, order])
        drawing = draw_cooccurrence({file.name: share}, [read.findings[k] for k in order])
        write_atomically(figure, standalone_svg(drawing))
    summary: dict[str, float] = found.summary.to_dict()
    about: Answer = {k: int(v) if k in WHOLE else _number(v) for k, v in summary.items()}
    given = no_finding(read.label, names=read.findings)
    about["no_finding"] = _none(int((given == 1).sum()), len(given), int(np.isnan(given).sum()))
    each = found.per_finding.set_index("finding").to_dict(orient="index")
    about["per_label"] = {
        str(name): {str(k): _number(v) for k, v in row.items()} for name, row in each.items()
    }
    return about


def describe_labels(file: Path) -> Answer:
    """Return the films, patients, facts and findings of a label file with images and patients."""
    films = read_labelled(file)
    a_patient = np.unique(films.patient, return_counts=True)[1]
    about: Answer = {
        "origin": films.origin,
        "films": len(films),
        "patients": len(a_patient),
        "films_per_patient": {
            "median": float(np.median(a_patient)) if len(a_patient) else None,
            "most": int(a_patient.max(initial=0)),
        },
    }
    for fact in ("view", "sex"):
        if fact in films.facts:
            counts = films.facts[fact].value_counts(dropna=False)
            about[fact] = {str(level): int(count) for level, count in counts.items()}
    age = films.facts["age"].dropna().to_numpy() if "age" in films.facts else np.empty(0)
    if len(age):
        quantiles = np.quantile(age.astype(np.float64), (0.0, 0.5, 1.0)).tolist()
        about["age"] = dict(zip(("lowest", "median", "highest"), quantiles, strict=True))
    about["boxes"] = len(films.boxes)
    given = no_finding(films.label, names=films.findings)
    about["no_finding"] = _none(int((given == 1).sum()), len(given), int(np.isnan(given).sum()))
    about["per_label"] = {
        name: {
            "positive": int((films.label[:, k] == 1).sum()),
            "negative": int((films.label[:, k] == 0).sum()),
            "not_stated": int(np.isnan(films.label[:, k]).sum()),
        }
        for k, name in enumerate(films.findings)
    }
    return about


def balance_from_labels(
    protocol: Protocol, *, labels: Path | None, figure: Path | None, table: Path | None
) -> Answer:
    """Return what a protocol's balancing does to a label table; no film is looked for.

    `figure` (SVG) and `table` (CSV) are files to write. Raises ValueError for a protocol with
    variants, each of which has a plan of its own.
    """
    _refuse_variants(
        protocol, remedy="add --set 'variant=[]' --set 'seeds=[]' for the plan of its base"
    )
    films, plan, change = plan_of_labels(protocol, labels=labels)
    _keep(change, figure=figure, table=table)
    return {"origin": films.origin, **answer_of(change, plan=plan, protocol=protocol)}


def answer_of(change: Change, *, plan: Plan, protocol: Protocol) -> Answer:
    """Return what a plan did to the films it was made of: totals, steps, measures, findings."""
    choices, totals = protocol.balance, change.totals.set_index("when").to_dict("index")
    shown = plan if choices.before_split else plan.take(plan.part == "train")
    method = choices.method + (f", then {choices.then}" if choices.then != "none" else "")
    measures = change.summary.set_index("measure").to_dict("index")
    return {
        "method": method,
        "before_split": choices.before_split,
        "population": change.population,
        "films": int(totals["before"]["entries"]),
        "entries": len(shown),
        "copies": int((shown.copy > 0).sum()),
        "weighted": bool((shown.weight != 1).any()),
        "parts": {part: int((plan.part == part).sum()) for part in PARTS},
        "steps": _records(change.steps, whole=("before", "after")),
        "no_finding": {
            when: _none(row["no_finding"], row["entries"], row["unstated"])
            for when, row in totals.items()
        },
        "measures": {str(name): _ends(row, whole=name in WHOLE) for name, row in measures.items()},
        "per_label": {row.pop("finding"): row for row in _records(change.counts)},
    }


def in_table(answer: Answer) -> str:
    """Return what `answer_of` gives for people: steps and findings as tables, then measures."""
    found: Any = answer
    early = ", before the split" if found["before_split"] else ""
    lines = [f"origin: {found['origin']}"] if "origin" in found else []
    lines += [
        f"balancing: {found['method']}{early}",
        f"counts are of {found['population']}: {found['films']:,} films, "
        f"{found['entries']:,} entries after balancing, {found['copies']:,} of them copies",
        "entries by part: " + ", ".join(f"{k} {v:,}" for k, v in found["parts"].items()),
        "",
        *_aligned(STEP_HEADS, [_step(row) for row in found["steps"]]),
        "",
        *_aligned(FINDING_HEADS, _findings(found)),
        "",
    ]
    for name, title in MEASURES.items():
        ends = found["measures"][name]
        lines.append(f"{title}: {_decimal(ends['before'])} before, {_decimal(ends['after'])} after")
    unstated = found["no_finding"]["before"]["not_stated"]
    if unstated:
        lines.append(f"not known to have No Finding, for a label is not stated: {unstated:,} films")
    if found["weighted"]:
        lines.append("after balancing a finding's entries count by their weight in the loss")
    lines += [f"folder: {found['folder']}"] if "folder" in found else []
    return "\n".join(lines) + "\n"


def _keep(change: Change, *, figure: Path | None, table: Path | None) -> None:
    """Draw the counts and steps to an SVG file, and write the steps to a CSV file, where named."""
    if table is not None:
        write_atomically(table, steps_text(change.steps))
    if figure is not None:
        from lucency.report.imbalance_figures import draw_balancing
        from lucency.report.rendering import standalone_svg

        write_atomically(figure, standalone_svg(draw_balancing(change)))


def check_figure(figure: Path | None) -> None:
    """Raise ValueError for a figure that would not be SVG: before the work, not after."""
    if figure is not None and figure.suffix != ".svg":
        raise ValueError(f"--figure {figure}: expected a file name that ends in .svg")


def _refuse_variants(protocol: Protocol, *, remedy: str) -> None:
    """Raise ValueError for a protocol with variants."""
    if protocol.variant:
        raise ValueError(f"a protocol with variants has a plan for each: {remedy}")


def _none(films: int, entries: int, unstated: int) -> Answer:
    share = films / entries if entries else None
    return {"films": films, "share": share, "not_stated": unstated}


def _ends(row: dict[Any, Any], *, whole: bool) -> Answer:
    return {str(k): int(v) if whole else _number(v) for k, v in row.items()}


def _records(table: pd.DataFrame, *, whole: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the rows for JSON: None where there is no number, counts of `whole` without a dot."""
    rows = [{str(k): _number(v) for k, v in row.items()} for row in table.to_dict("records")]
    for row in rows:
        row |= {k: int(row[k]) for k in whole if isinstance(row[k], float)}
    return rows


def _number(value: Any) -> Any:
    """Return a number that JSON knows: None where there is none."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and np.isnan(plain) else plain


def _step(row: dict[str, Any]) -> list[str]:
    about = [_whole(row["before"]), _whole(row["after"])]
    change = [f"{sign}{row[k]:,}" if row[k] else "" for k, sign in SIGNS.items()]
    return [f"{row['action']} {row['finding']}".strip(), *about, *change, f"{row['total']:,}"]


def _findings(found: dict[str, Any]) -> list[list[str]]:
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


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _decimal(value: float | None) -> str:
    return "not computable" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "no entries" if share is None else f"{100 * share:.1f} %"


SIGNS = {"added": "+", "dropped": "\N{MINUS SIGN}"}
STEP_HEADS = ("step", "before", "after", "added", "dropped", "total")
FINDING_HEADS = ("finding", "before", "after", "IRLbl before", "after")
MEASURES = {"mean_ir": "MeanIR", "cvir": "CVIR", "scumble": "SCUMBLE"}


def do_stage(run: Run, stage: str) -> Answer:
    """Do `stage` and all before it, and return its answer."""
    of_run, of_variants = ANSWERS[stage]
    if run.protocol.variant:
        return of_variants(run, ablation_study.make(run, stage))
    return of_run(run, stages.make(run, stage))


def _of_prepare(run: Run, made: Any) -> Answer:
    counts = {"films": len(made.manifest), "rejected": len(made.rejected)}
    return {**counts, "folder": str(run.out / "prepared")}


def _of_split(run: Run, made: Any) -> Answer:
    from lucency.pipeline.stages import split_name

    parts = {part: int((made == part).sum()) for part in PARTS}
    return {"films": parts, "fingerprint": split_name(run)}


def _of_balance(run: Run, made: Any) -> Answer:
    from lucency.pipeline.stages import change

    found = answer_of(change(run), plan=made, protocol=run.protocol)
    return {**found, "folder": str(run.out / "plan")}


def _of_train(run: Run, made: Any) -> Answer:
    del run
    return {name: str(folder) for name, folder in made.items()}


def _of_predict(run: Run, made: Any) -> Answer:
    return {p.network: str(run.out / "predictions" / p.network) for p in made}


def _of_evaluate(run: Run, made: Any) -> Answer:
    ranking = made.ranking.set_index("network")["value"].round(4).to_dict()
    return {
        "macro AUC": ranking,
        "conclusion": made.conclusion,
        "tables": str(run.out / "evaluation"),
    }


def _of_report(run: Run, made: Any) -> Answer:
    from lucency.pipeline.stages import evaluation, issues

    checks = "could not run"
    if "checks" not in Failures(run.out / "failed").reasons():
        found = issues(run)
        serious = count_serious(found)
        checks = f"{serious} serious, {len(found) - serious} to note"
    answer: Answer = {
        "conclusion": evaluation(run).conclusion,
        "leak doctor": checks,
        "report": str(made),
    }
    missing = Failures(run.out / "failed").reasons()
    return {**answer, NOT_MADE: missing} if missing else answer


def _of_check(run: Run, made: Any) -> Answer:
    serious = count_serious(made)
    return {"serious": serious, "notes": len(made) - serious, "folder": str(run.out / "check")}


def localised(sight: HeatmapResults, folder: Path) -> Answer:
    """Return the scores of a network's heat maps; ValueError where nothing was scored."""
    if not len(sight.scores.pointing):
        raise ValueError(f"nothing could be localised: {'; '.join(sight.remarks)}")
    pointing = sight.scores.pointing
    macro = pointing.loc[(pointing["finding"] == MACRO) & (pointing["measure"] == GAME)]
    hits = {
        row["method"]: f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        for row in macro.to_dict("records")
    }
    return {
        "network": sight.network,
        "pointing game": hits,
        "conclusion": conclude_heatmaps(sight.scores.baselines, boxes=sight.boxes),
        "remarks": list(sight.remarks),
        "tables": str(folder),
    }


def _of_plans(run: Run, made: Any) -> Answer:
    del run
    return {name: f"{int((plan.part == 'train').sum()):,} entries" for name, plan in made.items()}


def _of_trainings(run: Run, made: Any) -> Answer:
    del run
    every = [(title, *one) for title, networks in made.items() for one in networks.items()]
    return {f"{title}/{name}": str(folder) for title, name, folder in every}


def _of_variants(run: Run, made: Any) -> Answer:
    del made
    return {name: str(run.out / "variants" / name) for name, _ in members(run)}


def _of_comparison(run: Run, made: Any) -> Answer:
    del made
    conclusion = (run.out / "evaluation" / "conclusion.txt").read_text(encoding="utf-8").strip()
    return {"conclusion": conclusion, "tables": str(run.out / "evaluation")}


def _of_ablation(run: Run, made: Any) -> Answer:
    return {**_of_comparison(run, made), "report": str(made)}


ANSWERS: dict[str, tuple[Callable[[Run, Any], Answer], Callable[[Run, Any], Answer]]] = {
    "prepare": (_of_prepare, _of_prepare),  # of a run, and of one with variants
    "split": (_of_split, _of_split),
    "balance": (_of_balance, _of_plans),
    "train": (_of_train, _of_trainings),
    "predict": (_of_predict, _of_variants),
    "evaluate": (_of_evaluate, _of_comparison),
    "check": (_of_check, _of_check),
    "report": (_of_report, _of_ablation),
}
