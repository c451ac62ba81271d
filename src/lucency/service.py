"""What the commands answer: a stage done, in words or JSON; films on disk predicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lucency.data.film import SUFFIXES
from lucency.progress import progress
from lucency.receipt import rank
from lucency.run import STAGES
from lucency.values import PARTS
from lucency.workspace import Run


def do_stage(run: Run, stage: str, *, as_json: bool) -> str:
    """Do `stage` and all before it, and return its answer for people or, as JSON, for programs."""
    answer = ANSWERS[stage](run, STAGES[stage](run))
    if rank() > 0:
        return ""
    if as_json:
        return json.dumps(answer, indent=1) + "\n"
    return "".join(f"{key}: {_words(value)}\n" for key, value in answer.items())


def predict_disk(
    folder: Path, films: list[Path], *, network: str, csv: Path | None, as_json: bool
) -> str:
    """Return the probabilities of films as a CSV table or JSON; unreadable films say why."""
    files, place = list(_films(films)), _network_folder(folder, network)

    from lucency.learn.predict import predict_files
    from lucency.learn.zoo import load_classifier

    classifier = load_classifier(place)
    with progress("Predicting", unit="films") as advance:
        table, rejected = predict_files(classifier, files=files, progress=advance)
    whole = pd.concat([table, rejected], ignore_index=True)
    whole["reason"] = whole["reason"].fillna("")
    text = whole.to_csv(index=False)
    if csv is not None:
        csv.write_text(text)
    if as_json:
        answer = {
            "network": classifier.name,
            "films": table.to_dict("records"),
            "rejected": rejected.to_dict("records"),
        }
        return json.dumps(answer, indent=1) + "\n"
    return f"{csv}\n" if csv is not None else text


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
    if not trained:
        raise ValueError(f"{folder} holds no trained network: expected the folder of a run")
    names = [place.name for place in trained]
    if network and network not in names:
        raise ValueError(f"{folder} has no network {network!r}; expected one of {', '.join(names)}")
    if network:
        return folder / "networks" / network
    return max(trained, key=_best_validation_auc)


def _best_validation_auc(network: Path) -> float:
    return float(pd.read_csv(network / "history.csv")["val_auc"].fillna(0).to_numpy().max())


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _of_prepare(run: Run, made: Any) -> dict[str, object]:
    counts = {"films": len(made.manifest), "rejected": len(made.rejected)}
    return {**counts, "folder": str(run.out / "prepared")}


def _of_split(run: Run, made: Any) -> dict[str, object]:
    from lucency.run import split_name

    parts = {part: int((made == part).sum()) for part in PARTS}
    return {"films": parts, "fingerprint": split_name(run)}


def _of_balance(run: Run, made: Any) -> dict[str, object]:
    train = made.take(made.part == "train")
    counts = {"entries": len(train), "copies": int((train.copy > 0).sum())}
    return {**counts, "folder": str(run.out / "plan")}


def _of_train(run: Run, made: Any) -> dict[str, object]:
    return {name: str(run.out / "networks" / name) for name in made}


def _of_predict(run: Run, made: Any) -> dict[str, object]:
    return {p.network: str(run.out / "predictions" / p.network) for p in made}


def _of_evaluate(run: Run, made: Any) -> dict[str, object]:
    ranking = made.ranking.set_index("network")["value"].round(4).to_dict()
    return {
        "macro AUC": ranking,
        "conclusion": made.conclusion,
        "tables": str(run.out / "evaluation"),
    }


def _of_report(run: Run, made: Any) -> dict[str, object]:
    from lucency.run import verdict

    return {"conclusion": verdict(run).conclusion, "report": str(made)}


ANSWERS: dict[str, Callable[[Run, Any], dict[str, object]]] = {
    "prepare": _of_prepare,
    "split": _of_split,
    "balance": _of_balance,
    "train": _of_train,
    "predict": _of_predict,
    "evaluate": _of_evaluate,
    "report": _of_report,
}
