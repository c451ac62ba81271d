"""The model card of one predictor of a finished run, in Markdown, answered from the run's files.

Numbers stand as they do in the run's tables, rounded; counts are those of its manifest and plan.
What the run does not hold is *not reported*. Every value is escaped, so that no name of a finding
or of a network is taken for Markdown or HTML.

After model cards (Mitchell et al., FAT* 2019, 220-229) and TRIPOD+AI (Collins et al., BMJ
2024;385:e078378), whose items stand in tripod_ai.md.jinja.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lucency.audit.checks.run_checks import load_issues
from lucency.config.protocol import Protocol, without_folders
from lucency.config.sections import FROZEN
from lucency.core.manifest import (
    PARTS,
    Manifest,
    Preparation,
    counted,
    listed,
    load_manifest,
    load_preparation,
    read_table,
)
from lucency.core.plan import Plan, load_plan
from lucency.core.saved_files import fingerprint_file
from lucency.core.stage import RECEIPT, fingerprint_of
from lucency.core.tables import load_tables
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.split import set_apart
from lucency.ensemble.ensembles import TEXT, EnsembleResults
from lucency.ensemble.fitted import folder_name
from lucency.evaluation.compare import SIDES
from lucency.evaluation.evaluate import MACRO, MICRO
from lucency.evaluation.external_validation import load_validation
from lucency.evaluation.leakage_inflation import load_comparison
from lucency.evaluation.summary import Evaluation, load_evaluation
from lucency.explain.heatmap_results import load_heatmap_results
from lucency.explain.localization import GAME
from lucency.models.metadata import read_metadata
from lucency.pipeline.film_predictors import SNAPSHOT, Home, find_home
from lucency.pipeline.run import EXTERNAL, Run, command_of, describe_network, load_films

NOTICE = "For research only, not a medical device."
NOT_REPORTED = Markup("*not reported*")
FOLDER = Path(__file__).parent
PACKAGES = (
    "lucency", "torch", "timm", "onnx", "onnxruntime", "numpy", "opencv-python-headless",
    "scikit-learn",
)  # fmt: skip
TITLES = {
    "auc": "AUC", "average_precision": "average precision", "brier": "Brier score", "ece": "ECE",
    "f1": "F1", "precision": "precision", "recall": "recall", "specificity": "specificity",
}  # fmt: skip
GROUP_NUMBERS = {
    "auc": ("auc", "auc_low", "auc_high"), "gap": ("gap", "gap_low", "gap_high"),
    "calibration_gap": ("calibration_gap", "calibration_low", "calibration_high"),
}  # fmt: skip
MOST_LEVELS = 6  # of a fact that is counted
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;"}
SPECIAL = re.compile(r"[\\*\[\]~]|(?<![^\W_])_|_(?![^\W_])")
Values = dict[str, Any]


def model_card(run: Run, name: str, *, remarks: Sequence[str] = ()) -> str:
    """Return the model card of `name`, a network or another row of the run's leaderboard.

    `remarks` are sentences on files that lie beside the card, without the full stop. Raises
    ValueError where the run is not evaluated, or has no predictor of this name.
    """
    kind = kind_of(run, name)
    folder = run.out / "ensemble" / folder_name(name)
    tables = {one.stem: read_table(one, text=TEXT) for one in folder.glob("*.csv")}
    home = find_home(run.out)
    require_kept(home, name)
    made_of = _made_of(home, name)
    behind = _networks_behind(run, made_of)
    evaluation = load_evaluation(run.out / "evaluation")
    values = {
        "name": name,
        "kind": kind,
        "kind_with_article": f"an {kind}" if kind[0] in "aeiou" else f"a {kind}",
        "what": KINDS[kind],
        "notice": NOTICE,
        "NOT_REPORTED": NOT_REPORTED,
        "remarks": remarks,
        "run_name": run.protocol.name,
        "findings": run.protocol.findings,
        "conclusion": evaluation.conclusion,
        "lucency": metadata.version("lucency"),
        "versions": [f"{name} {version}" for name, version in software().items()],
        "several": len(made_of) > 1,
        **_model(run, tables, behind),
        "frozen": [_frozen_network(home, one) for one in made_of if one.startswith(FROZEN)],
        **_methods(run, evaluation),
        **_films(run),
        **_scores(run, name, evaluation),
        **_audits(run, name, behind),
        "provenance": _provenance(run, home, made_of),
    }
    return _jinja().get_template("model_card.md.jinja").render(values)


def kind_of(run: Run, name: str) -> str:
    """Return what `name` is in a run: a network, or the kind that the leaderboard states.

    Raises ValueError where the run is not evaluated, or has no predictor of this name.
    """
    if not (run.out / "evaluation" / RECEIPT).is_file():
        raise ValueError(
            f"{run.out} is not evaluated yet: expected a finished run; finish it with "
            f"{command_of(run.out)}"
        )
    kinds = {network.name: "network" for network in run.protocol.network}
    board = _ensembles(run).leaderboard
    if len(board):
        kinds |= dict(zip(board["network"], board["kind"], strict=True))
    if name not in kinds:
        known = ", ".join(kinds)
        raise ValueError(f"{run.out} has no predictor {name!r}; expected one of {known}")
    return kinds[name]


def require_kept(home: Home, name: str) -> None:
    """Raise ValueError for an entry of the leaderboard that was made before predictors were kept.

    What it is made of is not known.
    """
    if name in home.lost:
        raise ValueError(
            f"{home.folder}: {name} was made before predictors were kept: go on with "
            f"{command_of(home.folder)}"
        )


def escape(text: object) -> str:
    """Return text that Markdown and HTML show as it is, on one line.

    >>> escape("a|b <script>*x*</script> Pleural_Thickening _y_")
    'a&#124;b &lt;script&gt;\\\\*x\\\\*&lt;/script&gt; Pleural_Thickening \\\\_y\\\\_'
    """
    line = "".join(sign if sign.isprintable() else " " for sign in str(text))
    line = "".join(ENTITIES.get(sign, sign) for sign in line)
    return SPECIAL.sub(lambda found: "\\" + found[0], line)


def decimal(number: float | None, places: int = 3) -> str:
    """Return a number with so many decimals, "not computable" where it is NaN or None."""
    if number is None or np.isnan(number):
        return "not computable"
    return f"{number:z.{places}f}"


def score(row: Values) -> str:
    """Return a row's `value` with `low` and `high` in parentheses, where there is an interval.

    >>> score({"value": 0.5, "low": 0.25, "high": 0.75}), score({"value": 1.0, "low": np.nan})
    ('0.500 (0.250 to 0.750)', '1.000')
    """
    low, high = row.get("low", np.nan), row.get("high", np.nan)
    given = not (np.isnan(row["value"]) or np.isnan(low) or np.isnan(high))
    return decimal(row["value"]) + (f" ({decimal(low)} to {decimal(high)})" if given else "")


def _model(run: Run, tables: dict[str, pd.DataFrame], behind: tuple[str, ...]) -> Values:
    """Return what the predictor is made of: its networks, members' weights and choices."""
    return {
        "networks": [_network(run, one) for one in behind],
        "weights": _weights(tables["weights"]) if "weights" in tables else {},
        "choices": tables["choices"].to_dict("records") if "choices" in tables else [],
    }


def _made_of(home: Home, name: str) -> tuple[str, ...]:
    """Return `name` and all that it is made of, members of members too, each once."""
    found = {name: None}
    if name in home.fitted:
        for one in home.predictor(name).rule.needed:
            found |= dict.fromkeys(_made_of(home, one))
    return tuple(found)


def _networks_behind(run: Run, made_of: tuple[str, ...]) -> tuple[str, ...]:
    """Return the run's networks in what a predictor is made of, in the protocol's order."""
    inside = {one.rpartition(SNAPSHOT)[0] or one for one in made_of}
    return tuple(one.name for one in run.protocol.network if one.name in inside)


def _frozen_network(home: Home, name: str) -> Values:
    """Return a row of the table of networks that the run did not train."""
    known = read_metadata(home.networks[name])
    return {
        "network": name,
        "architecture": known.architecture,
        "parameters": known.parameters,
        **without_folders({"provenance": known.provenance}),
        "views": home.views,
    }


def _network(run: Run, name: str) -> Values:
    row = describe_network(run.out / "networks" / name)
    training = run.protocol.training_of(name)
    shown = {
        "epochs": training.epochs,
        "batch": training.batch,
        "optimizer": training.optimizer,
        "learning rate": f"{training.learning_rate:g}",
        "schedule": training.schedule,
        "loss": training.loss,
        "augmentation": training.augment,
        "weights kept": training.keep,
        "seed": training.seed,
    }
    return {**row, "training": ", ".join(f"{key} {value}" for key, value in shown.items())}


def _weights(table: pd.DataFrame) -> Values:
    """Return members and, of every finding, their weights."""
    members = list(dict.fromkeys(table["network"]))
    wide = table.pivot_table(index="finding", columns="network", values="weight", sort=False)
    rows = [
        (finding, dict(zip(wide.columns, row, strict=True))) for finding, *row in wide.itertuples()
    ]
    return {"members": members, "rows": rows}


def _methods(run: Run, evaluation: Evaluation) -> Values:
    protocol, sources = run.protocol, [one.source for one in run.protocol.data.every]
    choices, fingerprint = protocol.evaluation, evaluation.thresholds["split"].iloc[0]
    early, officially = protocol.balance.before_split, protocol.split.method == "official"
    leak = (
        "After balancing: copies of one film may be in several parts, so that scores are too high."
    )
    rule = RULES[choices.threshold].format(recall=choices.recall)
    preparation = load_preparation(run.cache / "prepared")
    return {
        "split": {
            "method": protocol.split.method,
            "fingerprint": fingerprint,
            "text": leak if early else SPLITS[protocol.split.method],
        },
        "side": preparation.size,
        "preparation": _preparation(preparation),
        "balancing": _balancing(protocol),
        "recalibration": choices.recalibration,
        "threshold_rule": rule,
        "labels": _of_each(sources, LABELS, other=LABELS["csv"]),
        "assessors": _of_each(sources, ASSESSORS),
        "setting": _of_each(sources, SETTINGS),
        "sharing": _of_each(sources, SHARING),
        "reference": REFERENCES.get(sources[0], OTHER_REFERENCE)
        if len(sources) == 1
        else OTHER_REFERENCE,
        "traps": [
            *dict.fromkeys(trap for one in sources for trap in traps_of(one)),
            *(ONE_HOSPITAL if sources == ["nih"] else ()),
            *(OFFICIAL if officially and {*sources} <= {*NIH_LISTS} else ()),
        ],
    }


def traps_of(source: str) -> list[str]:
    """Return what is known to mislead in a source's labels and films, as sentences.

    Those of a collection are its own; of other tables nothing more is known than of a `csv`.
    """
    if source in COLLECTIONS:
        return [f"{_sentence(trap)}." for trap in COLLECTIONS[source].traps]
    return [*TRAPS.get(source, TRAPS["csv"])]


def _of_each(sources: Sequence[str], texts: Mapping[str, str], *, other: str = "") -> str:
    """Return the texts of all sources, each once."""
    known = dict.fromkeys(texts.get(one, other) for one in sources)
    return " ".join(text for text in known if text)


def _preparation(preparation: Preparation) -> str:
    clahe = f"CLAHE with clip limit {preparation.clahe_clip:g} and {preparation.clahe_tiles} x "
    clahe += f"{preparation.clahe_tiles} tiles"
    side = f"{preparation.size} x {preparation.size} pixels ({preparation.interpolation})"
    steps = {
        "clahe-first": f"{clahe} at the film's own size, then {side}",
        "resize-first": f"{side}, then {clahe}",
        "no-clahe": f"{side}, no CLAHE",
    }
    rest = f"brightness {preparation.brightness:+d}; " if preparation.brightness else ""
    rest += f"denoising {', '.join(preparation.denoise)}; " if preparation.denoise else ""
    return f"{steps[preparation.order]}; {rest}grey, 8 bits a pixel."


def _balancing(protocol: Protocol) -> str:
    choices = protocol.balance
    if choices.method == "none":
        return "None."
    then = f", then {choices.then}" if choices.then != "none" else ""
    if choices.before_split:
        return f"{choices.method}{then}, before the split, which is a mistake: test films too."
    return f"{choices.method}{then}, training films alone; validation and test films as they are."


def _films(run: Run) -> Values:
    """Return the counts of films, patients and labels, by part."""
    prepared = load_films(run)
    films, folder = prepared.manifest, run.source / "manifest"
    plan = load_plan(run.out / "plan", films.image)
    apart = int(set_apart(films, choices=run.protocol.split).sum())
    missing = len(read_table(folder / "missing.csv", text=("image",)))
    found = load_manifest(folder)
    counts = {
        "origin": found.origin,
        "listed": len(found) + missing,
        "films": len(films),
        "patients": len(np.unique(films.patient)),
        "missing": missing,
        "rejected": len(prepared.rejected),
        "unused": len(films) - len(np.unique(plan.row)) - apart,
        "apart": apart,
        "excluded": any(one.exclude for one in run.protocol.data.every),
    }
    parts = [_part(films, plan, part) for part in PARTS]
    return {"data": counts, "parts": parts, "facts": list(parts[0]["facts"])}


def _part(films: Manifest, plan: Plan, part: str) -> Values:
    """Return the counts of one part: its films' patients, labels and facts."""
    entries = plan.row[plan.part == part]
    mine = films.take(np.unique(entries))
    label = mine.label_counts()
    facts = {}
    for name in ("sex", "view"):
        levels = films.facts[name].fillna("").replace("", "unknown") if name in films.facts else []
        for level in sorted(set(levels))[:MOST_LEVELS]:
            held = mine.facts[name].fillna("").replace("", "unknown")
            facts[f"films, {name} {level}"] = f"{(held == level).sum():,}"
    age = mine.facts["age"].median() if "age" in mine.facts else np.nan
    return {
        "name": part,
        "entries": len(entries),
        "films": len(mine),
        "patients": len(np.unique(mine.patient)),
        "positives": label["positive"].to_dict(),
        "not_stated": label["not_stated"].to_dict(),
        "facts": facts | ({} if np.isnan(age) else {"median age, years": f"{age:g}"}),
    }


def _scores(run: Run, name: str, evaluation: Evaluation) -> Values:
    """Return the scores of the evaluation, or those of the leaderboard where it has no others."""
    board = _ensembles(run).leaderboard
    mine = evaluation.metrics.loc[evaluation.metrics["network"] == name]
    place = board.loc[board["network"] == name].to_dict("records") if len(board) else []
    groups = evaluation.subgroups
    shown = groups.loc[
        (groups["network"] == name) & (groups["finding"] == MACRO) & (groups["films"] > 0)
    ]
    rows = _by_finding(mine, evaluation.thresholds, name) if len(mine) else []
    macro = mine.loc[mine["finding"] == MACRO].fillna({"note": ""})
    return {
        "scores": rows,
        "macro": rows[-1] if rows else {key: _of(place[0], key) for key in ("auc", *BOARD[1:])},
        "macro_notes": _notes(macro),
        "place": place[0] if place else {},
        "places": max(len(board), len(run.protocol.network)),
        "subgroups": [
            {**row, **{key: _of(row, *ends) for key, ends in GROUP_NUMBERS.items()}}
            for row in shown.to_dict("records")
        ],
        "ranked_first": evaluation.ranking["network"].iloc[0],
        **_held_out(run, name),
        "external": _external(run, name),
    }


def _by_finding(metrics: pd.DataFrame, thresholds: pd.DataFrame, name: str) -> list[Values]:
    """Return a row a finding, macro last: its scores, threshold and number of positives."""
    fitted = thresholds.loc[thresholds["network"] == name].fillna({"note": ""})
    limit = fitted.set_index("finding")[["threshold", "note"]].to_dict("index")
    table = metrics.fillna({"note": ""})
    cell = table.set_index(["finding", "metric"]).to_dict("index")
    rows = []
    for finding in [*limit, MACRO]:
        own = limit.get(finding, {"threshold": None, "note": ""})
        rows.append({
            "finding": finding,
            "positives": int(cell[finding, "auc"]["positives"]),
            "threshold": own["threshold"],
            "threshold_note": own["note"],
            **{metric: cell[finding, metric] for metric in TITLES},
        })  # fmt: skip
    return rows


def _notes(macro: pd.DataFrame) -> list[str]:
    """Return what the macro means are over, and which are biased or without interval."""
    shown = macro.loc[macro["metric"].isin(list(TITLES)) & (macro["note"] != "")]
    return [
        f"Macro {listed([TITLES[name] for name in rows['metric']])}: {note}."
        for note, rows in shown.groupby("note", sort=False)
    ]


def _of(row: Values, value: str, low: str = "", high: str = "") -> Values:
    """Return a number of a wide table as `value`, `low` and `high`, with the row's note."""
    low, high = low or f"{value}_low", high or f"{value}_high"
    return {"value": row[value], "low": row[low], "high": row[high], "note": ""}


def _held_out(run: Run, name: str) -> Values:
    """Return the scores on patients set apart, where the run has any."""
    folder = run.out / "study"
    if not (folder / RECEIPT).is_file():
        return {"held_out": []}
    found = load_comparison(folder)
    rows = found.inflation.loc[found.inflation["network"] == name].to_dict("records")
    held = [
        {
            **row,
            "own_test": _of(row, "own_test"),
            "held_out": _of(row, "held_out"),
            "inflation": _of(row, "inflation", "low", "high"),
        }
        for row in rows
    ]
    return {"held_out": held, "held_out_conclusion": found.conclusion.rstrip(".")}


def _external(run: Run, name: str) -> list[Values]:
    """Return each external test that is made, with the scores of a network in it; of others none.

    The run tests its networks alone.
    """
    tests = []
    for one in run.protocol.external:
        folder = run.out / EXTERNAL / one.name / "evaluation"
        if not (folder / RECEIPT).is_file():
            continue
        found = load_validation(folder)
        mine = found.scores.loc[found.scores["network"] == name]
        rows = mine.loc[(mine["metric"] == "auc") & (mine["finding"] != MICRO)].to_dict("records")
        cells = {
            side: [{**_of(row, side), "finding": row["finding"]} for row in rows] for side in SIDES
        }
        gaps = [_of(row, "difference", "low", "high") for row in rows]
        tests.append({
            "about": found.about,
            "conclusion": found.conclusion,
            "rows": list(zip(cells["internal"], cells["external"], gaps, strict=True)),
        })  # fmt: skip
    return tests


def _audits(run: Run, name: str, behind: tuple[str, ...]) -> Values:
    """Return the leak doctor's issues, the quality of labels, and the scores of heat maps."""
    others = {network.name for network in run.protocol.network} - {*behind}
    issues = None
    if (run.out / "check" / RECEIPT).is_file():
        rows = load_issues(run.out / "check").to_dict("records")
        about = [row for row in rows if row["message"].partition(": ")[0] not in others]
        issues = [{**row, "sentence": _of_network(row["message"], behind)} for row in about]
    quality = run.out / "audit" / "label_quality.csv"
    labels = (
        read_table(quality, text=("finding", "rating", "reason")) if quality.is_file() else None
    )
    return {
        "issues": issues,
        "label_quality": []
        if labels is None
        else labels.loc[labels["ppv"].notna()].to_dict("records"),
        "heatmaps": _heatmaps(run.out / "explanation", name),
    }


def _of_network(message: str, behind: tuple[str, ...]) -> str:
    """Return an issue's message as a sentence; the name of a network stays as it is."""
    return message.rstrip(".") if message.startswith(behind) else _sentence(message)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")


def _heatmaps(folder: Path, name: str) -> list[Values]:
    """Return a row a method: pointing game over findings, and the sanity check."""
    if not (folder / RECEIPT).is_file():
        return []
    found = load_heatmap_results(folder)
    pointing, sanity = found.scores.pointing, found.sanity
    if found.network != name or not len(pointing):
        return []
    macro = pointing.loc[(pointing["finding"] == MACRO) & (pointing["measure"] == GAME)]
    outcome = dict(zip(sanity["method"], sanity["outcome"], strict=True))
    rows = macro.loc[macro["method"].isin(sanity["method"])].to_dict("records")
    return [{**row, "outcome": outcome[row["method"]]} for row in rows]


def _provenance(run: Run, home: Home, made_of: tuple[str, ...]) -> Values:
    """Return the fingerprints of the run's stages, and of all that a predictor is made of."""
    held = {
        "Run": run.protocol.name,
        **{f"Fingerprint of {stage}": run.fingerprints(stage)[stage] for stage in STAMPED},
    }
    for one in made_of:
        if one in home.fitted:
            held[f"Fingerprint of {one}"] = fingerprint_of(home.fitted[one])
        else:
            folder, weights, _ = home.place(one)
            title = f"Weights of {one} (SHA-256, first 16 digits)"
            held[title] = fingerprint_file(folder / weights)
    return held


def _ensembles(run: Run) -> EnsembleResults:
    folder = run.out / "ensemble" / "leaderboard"
    if not (folder / RECEIPT).is_file():
        return EnsembleResults()
    return load_tables(EnsembleResults, folder, text=TEXT)


def software() -> dict[str, str]:
    """Return the versions of Python and of the packages that a model is exported by."""
    held = {"Python": platform.python_version()}
    return held | {name: metadata.version(name) for name in PACKAGES}


@cache
def _jinja() -> Environment:
    jinja = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=False,  # every value is escaped for Markdown, as it is written
        finalize=lambda value: value if isinstance(value, Markup) else escape(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"decimal": decimal, "score": score, "counted": counted, "safe": Markup}
    jinja.filters |= {"capitalise": _sentence}
    return jinja


BOARD = ("auc", "average_precision", "f1", "brier")
STAMPED = ("manifest", "prepared", "plan", "evaluation")
KINDS = {
    "network": "a neural network",
    "snapshots": "the mean probability of snapshots of one network in training",
    "views": "the mean logit of one network over augmented views of a film",
    "ensemble": "an ensemble of other predictors",
    "learner": "a classical classifier on features of films",
    "neighbours": "the vote of the most similar training films",
}
SPLITS = {
    "patient": "By patient, at random: no patient is in two parts.",
    "official": "The publisher's own training and test films; validation films, where it names "
    "none, are drawn from the training films by patient. No patient is in two parts.",
    "shuffled": "By patient, shuffled: no patient is in two parts.",
    "column": "As a column of the films' table states. No patient is in two parts.",
    "lists": "By lists of films. No patient is in two parts.",
    "time": "By time: patients whose first film is earliest train, the latest test. No patient is "
    "in two parts.",
    "image": "By film: films of one patient are in several parts, so that scores are too high.",
}
RULES = {
    "f1": "Fitted on validation films: the largest F1 of each finding.",
    "youden": "Fitted on validation films: the largest recall + specificity of each finding.",
    "recall": "Fitted on validation films: the highest threshold with a recall of {recall:g} or "
    "more to be expected.",
    "half": "0.5 for every finding, not fitted.",
}
LABELS = {
    "nih": "Text-mined: a program read them out of radiology reports (Wang et al., CVPR 2017). No "
    "radiologist labelled the films.",
    "phantom": "Drawn with the invented films; no person and no report stands behind them.",
    "csv": "From the table of the run. How they were made: not reported.",
}
ASSESSORS = {
    "nih": "None: a program read reports.",
    "phantom": "None: the films are invented with their labels.",
}
SETTINGS = {"nih": "One centre: the NIH Clinical Center, Bethesda, United States."}
SHARING = {
    "nih": "The films and labels of ChestX-ray14 are published by the NIH Clinical Center.",
    "phantom": "The films are drawn again by the run's protocol.",
}
OTHER_REFERENCE = "a reference of the run"
REFERENCES = {
    "nih": "radiologists on 810 test films, Nabulsi et al., 2021",
    "phantom": "the findings drawn on the phantoms",
}
TRAPS = {
    "nih": (
        "Labels are text-mined. A label is a word of a report, not an illness; scores against "
        "radiologists are lower.",
        "'No Finding' means none of the 14 findings in the report. It does not mean normal.",
        "A label may be of an illness that is treated already: many films with a pneumothorax show "
        "a chest drain.",
        "The official test films are sicker than the rest; scores on official and random splits "
        "may not stand in one ranking.",
    ),
    "phantom": (),
    "csv": (
        "How the labels were made is not known to the run; a score is agreement with them.",
        "'No Finding' means none of the listed findings. It does not mean normal.",
    ),
}
ONE_HOSPITAL = ("All films are of one hospital.",)
NIH_LISTS = ("nih", "phantom")  # sources whose official split is NIH's lists
OFFICIAL = ("The split is the official one: test films are sicker than training films.",)
