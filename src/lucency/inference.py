"""Films on disk predicted by a run's network, in a table or in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lucency.data.film import SUFFIXES
from lucency.progress import progress, say
from lucency.workspace import best_network


def predict_disk(folder: Path, films: list[Path], *, network: str) -> tuple[str, pd.DataFrame]:
    """Return the network's name and a row a film: its probabilities, or why it was not read.

    Raises ValueError when not one film can be read.
    """
    files, place = list(films_below(films)), network_folder(folder, network)
    if not any(file.exists() for file in files):
        raise ValueError(f"{files[0]}: no such file; expected films, or folders of them")

    from lucency.learn.predict import predict_files
    from lucency.learn.zoo import load_classifier

    classifier = load_classifier(place)
    chosen = "" if network or place == folder else ", the best on validation films"
    say(f"Network: {classifier.name}{chosen}")
    with progress("Predicting", unit="films") as advance:
        table, rejected = predict_files(classifier, files=files, progress=advance)
    if not len(table):
        first = rejected.iloc[0]
        told = f"{first['film']}: {first['reason']}"
        raise ValueError(
            f"none of {len(rejected)} films can be read ({told}); expected one or more"
        )
    whole = pd.concat([table, rejected], ignore_index=True)
    return classifier.name, whole.assign(reason=whole["reason"].fillna(""))


def films_for_programs(network: str, table: pd.DataFrame) -> dict[str, object]:
    """Return `predict_disk`'s table for programs."""
    read = table["reason"] == ""
    films = table.loc[read].drop(columns="reason").to_dict(orient="records")
    rejected = table.loc[~read, ["film", "reason"]].to_dict(orient="records")
    return {"network": network, "films": films, "rejected": rejected}


def films_below(places: list[Path]) -> Iterator[Path]:
    """Yield the films at these places, folders searched to the bottom; ValueError for none."""
    for place in places:
        if place.is_dir():
            found = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise ValueError(f"{place} holds no film; expected {', '.join(SUFFIXES)}")
            yield from found
        else:
            yield place


def network_folder(folder: Path, network: str) -> Path:
    """Return a network's own folder; of a run the named one, or the best on validation films."""
    if (folder / "classifier.json").is_file():
        if network not in ("", folder.name):
            raise ValueError(f"{folder} is one network; expected no --network beside it")
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
    return best_network(trained)
