"""What the commands answer: a stage done, in words or JSON; films on disk predicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lucency import ablation
from lucency.data.film import SUFFIXES
from lucency.data.labels import read_labels
from lucency.progress import progress, say
from lucency.receipt import write_atomically
from lucency.run import STAGES
from lucency.values import PARTS
from lucency.workspace import Run

Answer = dict[str, object]


def do_stage(run: Run, stage: str) -> Answer:
    """Do `stage` and all before it, and return what there is to say about it."""
    if run.protocol.variant:
        return VARIED[stage](run, ablation.STAGES[stage](run))
    return ANSWERS[stage](run, STAGES[stage](run))


def in_words(answer: Answer) -> str:
    """Return an answer for people, one line an item."""
    return "".join(f"{key}: {_words(value)}\n" for key, value in answer.items())


def in_json(answer: Answer) -> str:
    """Return an answer for programs."""
    return json.dumps(answer, indent=1) + "\n"


def predict_disk(folder: Path, films: list[Path], *, network: str) -> tuple[str, pd.DataFrame]:
    """Return the network's name and a row a film: its probabilities, or why it was not read.

    Raises ValueError when not one film can be read.
    """
    files, place = list(_films(films)), _network_folder(folder, network)

    from lucency.learn.predict import predict_files
    from lucency.learn.zoo import load_classifier

    classifier = load_classifier(place)
    with progress("Predicting", unit="films") as advance:
        table, rejected = predict_files(classifier, files=files, progress=advance)
    if not len(table):
        first = rejected["reason"].iloc[0]
        raise ValueError(f"none of the {len(rejected)} films can be read: expected one ({first})")
    whole = pd.concat([table, rejected], ignore_index=True)
    return classifier.name, whole.assign(reason=whole["reason"].fillna(""))


def films_in_json(network: str, table: pd.DataFrame) -> str:
    """Return `predict_disk`'s table for programs."""
    read = table["reason"] == ""
    films = table.loc[read].drop(columns="reason").to_dict(orient="records")
    rejected = table.loc[~read, ["film", "reason"]].to_dict(orient="records")
    return in_json({"network": network, "films": films, "rejected": rejected})


def describe_imbalance(file: Path, *, figure: Path | None) -> Answer:
    """Return the imbalance measures of a label file; `figure` is an SVG file to draw to."""
    from lucency.balance.measures import cooccurrence, measure

    read = read_labels(file)
    if read.left_out:
        say(f"{file}: left out are {', '.join(read.left_out)}; read are {', '.join(read.findings)}")
    found = measure(read.label, names=read.findings)
    if figure is not None:
        from lucency.show.balancing import draw_cooccurrence
        from lucency.show.canvas import on_its_own

        order = np.argsort(-found.per_finding["count"].to_numpy(), kind="stable")
        share = cooccurrence(read.label[:, order])
        drawing = draw_cooccurrence({file.name: share}, [read.findings[k] for k in order])
        write_atomically(figure, on_its_own(drawing))
    whole = {"instances", "labels", "labelsets"}
    summary: dict[str, float] = found.summary.to_dict()
    about: Answer = {k: int(v) if k in whole else _number(v) for k, v in summary.items()}
    each = found.per_finding.set_index("finding").to_dict(orient="index")
    about["per_label"] = {
        str(name): {str(k): _number(v) for k, v in row.items()} for name, row in each.items()
    }
    return about


def _number(value: Any) -> object:
    """Return a number that JSON knows: None where there is none."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and np.isnan(plain) else plain


def _films(places: list[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            found = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise ValueError(f"{place} holds no film; expected {', '.join(SUFFIXES)}")
            yield from found
        else:
            yield place


def _network_folder(folder: Path, network: str) -> Path:
    """Return a network's own folder; of a run the named one, or the best on validation films."""
    if (folder / "classifier.json").is_file():
        return folder
    trained = sorted(p.parent for p in (folder / "networks").glob("*/receipt.json"))
    if not trained and (folder / "variants").is_dir():
        where = min((folder / "variants").glob("*/seed-*"), default="variants/NAME/seed-N")
        raise ValueError(f"{folder} holds variants: name the folder of one, such as {where}")
    if not trained:
        raise ValueError(f"{folder} holds no trained network: expected the folder of a run")
    names = [place.name for place in trained]
    if network and network not in names:
        raise ValueError(f"{folder} has no network {network!r}; expected one of {', '.join(names)}")
    if network:
        return folder / "networks" / network
    return max(trained, key=_validation_auc)


def _validation_auc(network: Path) -> float:
    """Return the validation macro AUC of the epoch whose weights were kept."""
    epoch = json.loads((network / "classifier.json").read_text())["epoch"]
    history = pd.read_csv(network / "history.csv").set_index("epoch")
    return float(history["val_auc"].fillna(0).to_dict()[epoch])


def _words(value: object) -> str:
    if isinstance(value, dict):
        apart = "\n  " if any(isinstance(item, dict) for item in value.values()) else ", "
        lines = [f"{key} {_words(item)}" for key, item in value.items()]
        return (apart if apart != ", " else "") + apart.join(lines)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, float):
        return "not computable" if value is None else f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _of_prepare(run: Run, made: Any) -> Answer:
    counts = {"films": len(made.manifest), "rejected": len(made.rejected)}
    return {**counts, "folder": str(run.out / "prepared")}


def _of_split(run: Run, made: Any) -> Answer:
    from lucency.run import split_name

    parts = {part: int((made == part).sum()) for part in PARTS}
    return {"films": parts, "fingerprint": split_name(run)}


def _of_balance(run: Run, made: Any) -> Answer:
    train = made.take(made.part == "train")
    counts = {"entries": len(train), "copies": int((train.copy > 0).sum())}
    return {**counts, "folder": str(run.out / "plan")}


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
    from lucency.run import verdict

    return {"conclusion": verdict(run).conclusion, "report": str(made)}


def _of_plans(run: Run, made: Any) -> Answer:
    del run
    return {name: f"{int((plan.part == 'train').sum()):,} entries" for name, plan in made.items()}


def _of_variants(run: Run, made: Any) -> Answer:
    del made
    return {name: str(run.out / "variants" / name) for name, _ in ablation.members(run)}


def _of_comparison(run: Run, made: Any) -> Answer:
    del made
    conclusion = (run.out / "evaluation" / "conclusion.txt").read_text().strip()
    return {"conclusion": conclusion, "tables": str(run.out / "evaluation")}


def _of_ablation(run: Run, made: Any) -> Answer:
    return {**_of_comparison(run, made), "report": str(made)}


ANSWERS: dict[str, Callable[[Run, Any], Answer]] = {
    "prepare": _of_prepare,
    "split": _of_split,
    "balance": _of_balance,
    "train": _of_train,
    "predict": _of_predict,
    "evaluate": _of_evaluate,
    "report": _of_report,
}
VARIED: dict[str, Callable[[Run, Any], Answer]] = {
    "prepare": _of_prepare,
    "split": _of_split,
    "balance": _of_plans,
    "train": _of_train,
    "predict": _of_variants,
    "evaluate": _of_comparison,
    "report": _of_ablation,
}
