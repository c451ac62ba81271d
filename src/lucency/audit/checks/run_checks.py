"""The leak doctor's calls: check a protocol, a run, external lists, or a table of predictions.

Checks of a protocol and its films are here: phantoms, pretrained weights, lost films, labels that
are not stated. Letters in shapes: n films, t listed films.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from lucency.audit.checks import nih_checks, prediction_checks, split_checks
from lucency.audit.checks.issue import (
    Fitted,
    Issue,
    SplitTable,
    UnverifiedPredictions,
    issue_table,
    issues_of,
    no_names,
    ranked,
    unverified,
)
from lucency.balance.methods import needs_features, planned, splitter
from lucency.config.protocol import Protocol
from lucency.config.sections import Network, Source
from lucency.core.files import write_table
from lucency.core.manifest import APART, PARTS, Manifest, Prepared, counted, read_table
from lucency.core.plan import COPY_MARK, Plan, originals
from lucency.core.predictions import Predictions, load_predictions
from lucency.core.tables import NIH_NAME, film_names, match_films
from lucency.data.collections.overlaps import COLLECTION_OF, overlap
from lucency.data.csv_tables import read_names
from lucency.data.duplicates import near_identical
from lucency.data.labels import OFFICIAL_LISTS, USUAL_COLUMNS, Columns, read_labelled
from lucency.data.several_sources import list_sources
from lucency.data.split import set_apart
from lucency.data.stored_tables import tables_folder
from lucency.evaluation.evaluate import TRIVIAL
from lucency.models.foundation import (
    FOUNDATIONS,
    collections_named,
    collections_seen,
    seen_by,
)

TEXT = ("severity", "check", "message", "examples", "remedy")
BEFORE = (  # of a protocol
    "invented_films", "pretrained_on_these", "random_weights", "external_shares_films",
    "pretrained_on_external",
)  # fmt: skip
BESIDE = ("rejected_films", "missing_films", "unstated_labels")  # of a run
NUMBER_OF_CHECKS = len({*split_checks.CHECKS, *prediction_checks.CHECKS, *BEFORE, *BESIDE})
SEEN_OF_EXTERNAL = {
    "labels": "the weights have learnt labels of an external test's films, so it is not external",
    "images": "the weights have been shown an external test's films without labels, an advantage",
    "": "the provenance of the weights names an external test's collection, and not what of it",
}
CHEST = re.compile(r"(?<!no )chest|nih\b|cxr|mimic|chexpert|padchest|x-?ray", re.IGNORECASE)


def check_protocol(protocol: Protocol) -> list[Issue]:
    """Return what is wrong with the parts and the balance that a protocol makes of its labels.

    Nothing is prepared or trained, and pictures need not be there.
    """
    films, part = list_sources(protocol.data, findings=protocol.findings, split=splitter(protocol))
    plan = _planned(films, part, protocol)
    listed = films.image[part != APART]
    table = split_table_of(plan, films=films, listed=listed, protocol=protocol)
    return ranked([*split_checks.check_split(table), *of_protocol(protocol, image=films.image)])


def check_run(
    protocol: Protocol,
    *,
    prepared: Prepared,
    plan: Plan,
    missing: Sequence[str],
    predictions: Sequence[Predictions],
    thresholds: pd.DataFrame,
    scores: pd.DataFrame,
) -> list[Issue]:
    """Return what is wrong with a finished run: its parts, pictures and predictions.

    `missing` are the listed films without a file; `thresholds` and `scores` as
    evaluation.thresholds and evaluation.evaluate give them, or empty.
    """
    films = prepared.manifest
    listed = films.image[~set_apart(films, choices=protocol.split)]  # others are meant to be out
    listed = np.concatenate([listed, prepared.rejected["image"].to_numpy(dtype=str), missing])
    table = split_table_of(plan, films=films, listed=listed, protocol=protocol)
    side = np.full(len(films), "", dtype=object)  # where a film stands as itself, if anywhere
    side[plan.row[plan.copy == 0]] = plan.part[plan.copy == 0]
    pairs = near_identical(prepared, side=side.astype(str))
    alike = pairs[["image", "other"]].to_numpy(dtype=object).reshape(-1, 2)
    found = split_checks.check_split(replace(table, alike=alike))
    test = [one.of("test") for one in predictions]
    found += remark(protocol, test=test[0], rejected=prepared.rejected, missing=missing)
    for one in test:
        rows = scores["network"].isin((one.network, TRIVIAL))
        splits = thresholds.loc[thresholds["network"] == one.network, "split"].unique().tolist()
        fitted = tuple(Fitted("thresholds", "val", str(split)) for split in splits)
        given = replace(
            unverified(one),
            listed=table.image,
            listed_part=table.part,
            fitted=fitted,
            scores=scores.loc[rows],
        )
        raw = replace(given, probability=one.uncalibrated().probability)
        found += prediction_checks.check_predictions(given)
        found += prediction_checks.constant_output(raw)
    return ranked(list(dict.fromkeys(found)))


def save_issues(found: Sequence[Issue], folder: Path) -> None:
    """Write issues.csv."""
    write_table(issue_table(found), folder / "issues.csv")


def load_issues(folder: Path) -> pd.DataFrame:
    """Read what `save_issues` wrote, as `audit.checks.issue.issue_table` gives it."""
    return read_table(folder / "issues.csv", text=TEXT, columns=TEXT)


def check_lists(
    lists: Mapping[str, Path], *, labels: Path, columns: Columns = USUAL_COLUMNS
) -> list[Issue]:
    """Return what is wrong with an external split: part -> file of image names.

    NIH's lists and boxes are looked for beside the label file.
    """
    return split_checks.check_split(split_table_of_lists(lists, labels=labels, columns=columns))


def check_predictions_file(file: Path) -> list[Issue]:
    """Return what is wrong with a run's predictions.npz, which holds patients and labels itself.

    Of several parts test films count.
    """
    whole = load_predictions(file)
    test = whole.of("test") if "test" in whole.part else whole
    raw = replace(unverified(test), probability=test.uncalibrated().probability)
    found = prediction_checks.check_predictions(unverified(test))
    found += prediction_checks.constant_output(raw)
    return ranked(list(dict.fromkeys(found)))


def check_external(
    predictions: UnverifiedPredictions,
    lists: Mapping[str, Path],
    *,
    labels: Path,
    columns: Columns = USUAL_COLUMNS,
) -> list[Issue]:
    """Return what is wrong with external predictions, and with their split where it is given."""
    if lists:
        table = split_table_of_lists(lists, labels=labels, columns=columns)
        predictions = replace(predictions, listed=table.image, listed_part=table.part)
        known = split_checks.check_split(table)
    else:
        part = np.full(len(predictions.image), "test")
        tests = SplitTable(image=predictions.image, patient=predictions.patient, part=part)
        known = list(nih_checks.community_lists(_with_lists(tests, labels.parent)))
    return ranked([*known, *prediction_checks.check_predictions(predictions)])


def remark(
    protocol: Protocol, *, test: Predictions, rejected: pd.DataFrame, missing: Sequence[str]
) -> Iterator[Issue]:
    """Return what must be read beside the scores of a run.

    `test` are the predictions of any network on test films; `rejected` the films that could not be
    decoded and `missing` the names of those without a file.
    """
    yield from of_protocol(protocol, image=test.image)
    names = rejected["image"].tolist()
    message = f"{counted(len(names), 'film')} left out because the file cannot be decoded"
    remedy = "see rejected.csv for the reasons, and fetch these films again"
    yield from issues_of("rejected_films", names, message, remedy=remedy, severity="note")
    message = f"{counted(len(missing), 'listed film')} left out for want of a file"
    remedy = "add the files below data.root, or say in every table that they are missing"
    yield from issues_of("missing_films", missing, message, remedy=remedy, severity="note")
    unstated = np.isnan(test.label)
    names, count = test.image[unstated.any(axis=1)].tolist(), int(unstated.sum())
    message = (
        f"{counted(count, 'label')} of {counted(len(names), 'test film')} "
        f"{'is' if count == 1 else 'are'} not stated, and counted neither as right nor as wrong"
    )
    remedy = "state them, or say beside the scores on how many films each stands"
    yield from issues_of(
        "unstated_labels", names, message, count=count, remedy=remedy, severity="note"
    )


def of_protocol(protocol: Protocol, *, image: Shaped[np.ndarray, " n"]) -> Iterator[Issue]:
    """Return what a protocol says by itself; `image` are names of its films, or some of them."""
    yield from (*invented(protocol), *pretrained(protocol))
    yield from external_shares_films(protocol, image=image)
    yield from pretrained_on_external(protocol)


def external_shares_films(
    protocol: Protocol, *, image: Shaped[np.ndarray, " n"]
) -> Iterator[Issue]:
    """Return the external tests whose films or patients are also in training's sources.

    Films of a table are ChestX-ray14's where they are named so.
    """
    every = protocol.data.every
    named = any(NIH_NAME.fullmatch(str(name)) for name in image)
    if named and all(one.source == "csv" for one in every):
        every = (*every, Source(source="nih"))
    shared = dict[str, str]()  # external test -> why
    for test in protocol.external:
        reasons = [why for one in every if (why := overlap(one, test))]
        shared |= {test.name: reasons[0]} if reasons else {}
    found = [f"{name}: {why}" for name, why in shared.items()]
    message = (
        f"{counted(len(found), 'external test', 'has/have')} films or patients that training has "
        f"({'; '.join(found)}): it is not external, and its scores may be memory"
    )
    remedy = "take another collection as external test, or train without the one that is shared"
    return issues_of("external_shares_films", found, message, remedy=remedy)


def pretrained_on_external(protocol: Protocol) -> Iterator[Issue]:
    """Return the networks whose weights come from the films of an external test.

    Learnt labels of it are serious. That a provenance names the collection is a note.
    """
    remedy = "take weights that never saw that collection, or say so beside its scores"
    for what, words in SEEN_OF_EXTERNAL.items():
        found = dict.fromkeys(
            f"{network.name} on {test.name}"
            for network in _networks(protocol)
            for test in protocol.external
            if _seen_of(network, test.source) == what
        )
        severity = "serious" if what == "labels" else "note"
        message = f"{words}: {', '.join(found)}"
        yield from issues_of(
            "pretrained_on_external", list(found), message, remedy=remedy, severity=severity
        )


def _networks(protocol: Protocol) -> tuple[Network, ...]:
    return (*protocol.network, *protocol.ensemble.frozen, protocol.balance.features)


def _seen_of(network: Network, source: str) -> str:
    """Return what of a source's collection published weights have seen; "" if they name it."""
    collection = COLLECTION_OF.get(source)
    if collection is None:
        return "none"
    known = collections_seen(network)
    named = "" if collection in collections_named(network.provenance) else "none"
    return known.get(collection, "none" if known else named)


def invented(protocol: Protocol) -> Iterator[Issue]:
    """Return that the films are phantoms, where they are."""
    places = {"the run": protocol.data.every}
    places |= {f"external test {test.name}": (test,) for test in protocol.external}
    drawn = {name: [one.source == "phantom" for one in every] for name, every in places.items()}
    some = [name for name, phantoms in drawn.items() if any(phantoms)]
    films = ["phantoms"] if some else []
    which = "the films" if all(map(all, drawn.values())) else f"some films of {', '.join(some)}"
    message = (
        f"{which} are phantoms: scores on them show that the program works, and are no evidence "
        "for real films"
    )
    remedy = "run a protocol on real films"
    return issues_of("invented_films", films, message, remedy=remedy, severity="note")


def pretrained(protocol: Protocol) -> Iterator[Issue]:
    """Return the networks whose weights have seen these films, or come from random numbers."""
    networks = _networks(protocol)
    seen = [(n.name, _most_seen(n, protocol)) for n in networks]
    shown = {
        what: list(dict.fromkeys(name for name, one in seen if one == what))
        for what in ("labels", "images")
    }
    remedy = "take weights that never saw these films, or compare with networks that saw as much"
    message = (
        f"the weights of {', '.join(shown['labels'])} have been shown labels of these films, "
        "test films maybe among them: scores may be memory"
    )
    yield from issues_of("pretrained_on_these", shown["labels"], message, remedy=remedy)
    message = (
        f"the weights of {', '.join(shown['images'])} have been shown these films without labels: "
        "an advantage that other networks do not have"
    )
    yield from issues_of(
        "pretrained_on_these", shown["images"], message, remedy=remedy, severity="note"
    )
    unknown = (
        n.name
        for n, (_, one) in zip(networks, seen, strict=True)
        if not one and (n.match in FOUNDATIONS or CHEST.search(n.provenance))
    )
    unsure = list(dict.fromkeys(unknown))
    message = (
        f"the weights of {', '.join(unsure)} come from chest films, as their provenance "
        "states, and the protocol does not say whether from these"
    )
    remedy = 'say network.seen: "labels", "images" or "none" of these films'
    yield from issues_of("pretrained_on_these", unsure, message, remedy=remedy, severity="note")
    fresh = [n.name for n in protocol.network if n.weights == "random"]
    message = (
        f"trained from random initialisation, not from pre-trained weights: {', '.join(fresh)}"
    )
    remedy = 'weights = "timm" starts from ImageNet, which helps most where films are few'
    yield from issues_of("random_weights", fresh, message, remedy=remedy, severity="note")


def _most_seen(network: Network, protocol: Protocol) -> str:
    """Return what a network has seen of the source of which it has seen most; unknown is little."""
    seen = {seen_by(network, source=one.source) for one in protocol.data.every}
    return next(what for what in ("labels", "images", "", "none") if what in seen)


def split_table_of(
    plan: Plan, *, films: Manifest, listed: Shaped[np.ndarray, " t"], protocol: Protocol
) -> SplitTable:
    """Return the parts of a plan; a mixed film is a copy of both its parents."""
    mixed = np.flatnonzero(plan.mix > 0)
    mates = [f"{films.image[plan.mate[entry]]}#mate-of-{entry}" for entry in mixed.tolist()]
    names = np.concatenate([plan.names(films.image).astype(object), np.array(mates, object)])
    row = np.concatenate([plan.row, plan.mate[mixed]])
    nih = next((one for one in protocol.data.every if one.source == "nih"), None)
    nihs_lists = protocol.data.source in ("nih", "phantom")
    officially = protocol.split.method == "official" and nihs_lists
    table = SplitTable(
        image=names,
        patient=films.patient[row],
        part=np.concatenate([plan.part, plan.part[mixed]]),
        method=protocol.split.method,
        listed=listed,
        dropped=films.image[np.setdiff1d(np.arange(len(films)), row)],
        boxed=films.boxes["image"].to_numpy(dtype=str) if officially else no_names(),
        origins=(films.origin,) if nih else (),
        named=_named(films),
    )
    return _with_lists(table, tables_folder(nih)) if nih else table


def split_table_of_lists(
    lists: Mapping[str, Path], *, labels: Path, columns: Columns = USUAL_COLUMNS
) -> SplitTable:
    """Return the parts of external lists; patients come from the label file by name."""
    films = read_labelled(labels, **columns)
    names = {part: _as_labelled(file, films) for part, file in lists.items()}
    image = np.concatenate([names[part] for part in PARTS if part in names])
    part = np.concatenate([np.full(len(names[part]), part) for part in PARTS if part in names])
    table = SplitTable(
        image=image,
        patient=_patients(image, films),
        part=part,
        listed=films.image,
        boxed=films.boxes["image"].to_numpy(dtype=str),
        origins=(films.origin,) if "Data_Entry" in films.origin else (),
        named=_named(films),
    )
    return _with_lists(table, labels.parent)


def _planned(films: Manifest, part: np.ndarray, protocol: Protocol) -> Plan:
    """Return the plan; of methods that look at pictures only the films that they start from."""
    if needs_features(protocol.balance):
        seen = np.flatnonzero(part != APART)
        return replace(originals(films.label).take(seen), part=part[seen].astype(str))
    return planned(films, part, protocol).plan


def _with_lists(table: SplitTable, folder: Path) -> SplitTable:
    """Return the table with NIH's two lists, where they lie in `folder`."""
    files = [folder / name for name in OFFICIAL_LISTS]
    train_val, test = (read_names(file) if file.is_file() else no_names() for file in files)
    return replace(table, official_train_val=train_val, official_test=test)


def _as_labelled(file: Path, films: Manifest) -> Shaped[np.ndarray, " t"]:
    """Return the names of a list as the label table has them; others, and marks, as they are."""
    listed = [name.partition(COPY_MARK) for name in read_names(file).tolist()]
    row = match_films(np.array([name for name, *_ in listed]), films.image, source=str(file))
    known = [films.image[place] for place in row]
    pairs = zip(listed, known, row >= 0, strict=True)
    return np.array(
        [(name if there else own) + mark + copy for (own, mark, copy), name, there in pairs]
    )


def _named(films: Manifest) -> dict[int, str | int]:
    return dict(zip(films.patient.tolist(), films.patient_id.tolist(), strict=True))


def _patients(image: Shaped[np.ndarray, " n"], films: Manifest) -> Int64[np.ndarray, " n"]:
    """Return each film's patient: as labelled, else by NIH's name, else one of its own."""
    film = film_names(image)
    row = pd.Index(film_names(films.image)).get_indexer(pd.Index(film))
    patient = np.where(row >= 0, films.patient[row], -1 - np.arange(len(film)))
    for place in np.flatnonzero(row < 0).tolist():
        if NIH_NAME.fullmatch(film[place]):
            patient[place] = int(film[place][:8])
    return patient.astype(np.int64)
