"""A run: one protocol in one folder, what its stages have made so far, and its variants."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from jaxtyping import Int64

from lucency.config.protocol import (
    BASE,
    PLACES,
    Protocol,
    chosen_labels,
    parse_protocol,
    protocol_text,
    read_protocol,
    without_folders,
    without_places,
)
from lucency.config.sections import External, Source
from lucency.core.files import NEW, make_folders, write_whole
from lucency.core.locks import LOCK, locked
from lucency.core.manifest import Prepared, counted, load_prepared, read_table
from lucency.core.parallel import rank
from lucency.core.plan import Plan
from lucency.core.predictions import Predictions
from lucency.core.progress import printable, say
from lucency.core.saved_files import fingerprint_file, read_json
from lucency.core.stage import (
    NOTE,
    RECEIPT,
    differences,
    fingerprint_of,
    inputs_of,
    is_complete,
)
from lucency.core.stores import absolute_place, url_of
from lucency.data.film_files import film_exists
from lucency.data.several_sources import as_drawn, inputs_of_sources, own_keys, section_of
from lucency.data.sources import KNOBS, absent_places, stated_findings
from lucency.ensemble.fitted import DATA
from lucency.models.metadata import (
    METADATA,
    MODEL,
    MODEL_ONNX,
    WEIGHTS,
    how_to_replace,
    read_metadata,
)

HISTORY = ("epoch", "val_auc", "films_per_second", "seconds")  # columns that are needed
FINALS = "finals"  # the folder of a sweep's trainings at fresh seeds
EXTERNAL = "external"  # the section and the folder of external tests, and before their failures
PATIENCE = 60.0  # seconds in which another process has written the protocol, which takes one
# What may change in a finished run.
OF_WEIGHTS = (".safetensors", ".pth", ".pt")  # endings of files
LATE = ("ensemble.", "unfamiliar.", EXTERNAL, "sweep.trials:")


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One protocol in one folder.

    Phantoms and the manifest lie in `source`, prepared films in `cache`, parts in `shared`: `out`
    itself unless the run is a variant of another, whose films it sees. `results` holds what the
    stages have returned.
    """

    protocol: Protocol
    out: Path
    workers: int
    source: Path
    cache: Path
    shared: Path
    results: dict[tuple[object, ...], Any] = field(init=False, repr=False, default_factory=dict)

    @property
    def draws(self) -> dict[str, int]:
        """How often patients are drawn for confidence intervals, and with which seed."""
        return self.protocol.evaluation.draws

    def fingerprints(self, *stages: str) -> dict[str, str]:
        """Return the fingerprints of finished stages by the names of their folders."""
        homes = {"manifest": self.source, "prepared": self.cache}
        return {name: fingerprint_of(homes.get(name, self.out) / name) for name in stages}

    def __repr__(self) -> str:
        return f"<Run {self.protocol.name} in {self.out}>"


AnySource = TypeVar("AnySource", bound=Source)
Function = TypeVar("Function", bound=Callable[..., Any])


def kept(stage: Function) -> Function:
    """Let a stage be done once for a run, or a value that holds one: it stays in its `results`."""

    @wraps(stage)
    def once(run: Any, *args: Any, **named: Any) -> Any:
        key = (stage.__module__, stage.__qualname__, args, tuple(sorted(named.items())))
        results = getattr(run, "run", run).results
        if key not in results:
            results[key] = stage(run, *args, **named)
        return results[key]

    return cast("Function", once)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What the stages up to `predict` made of a run, for the stages after it.

    `root` is where the films lie, `training_films` the rows of `prepared` that networks trained on
    before balancing, `classifiers` the folders of the networks by name.
    """

    run: Run
    root: Path
    prepared: Prepared
    pictures: Prepared
    plan: Plan
    training_films: Int64[np.ndarray, " m"]
    classifiers: dict[str, Path]
    predictions: list[Predictions]

    @property
    def evaluated(self) -> Plan:
        """The plan's validation and test films."""
        return self.plan.take(self.plan.part != "train")

    def predictions_of(self, network: str) -> Predictions:
        """Return a network's predictions of validation and test films."""
        return next(one for one in self.predictions if one.network == network)


def open_run(protocol: Protocol, *, out: str | Path, workers: int = 0) -> Run:
    """Return the run of `protocol` in `out`; a folder with work of another protocol is refused.

    Of LATE sections, and of `tracker`, others may be found: no network and no prediction is made
    from them. External tests that are finished and that `protocol` does not name are kept. Where
    the films lie is no part of a run: the folder keeps the last place, absolute, and that serves
    where `protocol` names one that is not there. Of several processes the first checks and writes
    for all.
    """
    run = checked_run(protocol, out=out, workers=workers)
    keep_protocol(run)
    return run


def checked_run(protocol: Protocol, *, out: str | Path, workers: int = 0) -> Run:
    """Return the run of `protocol` in `out` as `open_run` does; nothing is written."""
    if url := url_of(out):
        raise ValueError(f"{url}: a run lies in a folder of this machine; expected one (--out)")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: expected the run's folder, which may not exist yet")
    file = out / "protocol.toml"
    known = _read_known(file)
    placed, unnamed = _placed(protocol, known), _unnamed_tests(protocol, known)
    protocol = _with_finished_tests(placed, known, out=out)
    _refuse_other_text(protocol)
    count = workers or os.cpu_count() or 1
    run = Run(protocol=protocol, out=out, workers=count, source=out, cache=out, shared=out)
    if rank() > 0 or protocol == known:
        _say_unnamed(unnamed, out=out)
        return run
    idle = (file.name, f"{file.name}{NEW}", NOTE)  # also what a kill left of a protocol
    work = [p for p in out.rglob("*") if p.is_file() and p.name not in idle and p.suffix != LOCK]
    if work and known is None:
        raise ValueError(f"{out} is not empty and holds no run: choose another folder (--out)")
    if known is not None and any(_binds(p.relative_to(out)) for p in work):
        _refuse_another(run, known)
    if known is not None and work:
        _refuse_other_tests(run, known)
    _say_unnamed(unnamed, out=out)
    return run


def _refuse_other_text(protocol: Protocol) -> None:
    """Raise ValueError for a name that is no UTF-8: its protocol.toml could not be read back."""
    for line in protocol_text(protocol).splitlines():
        if line.encode(errors="ignore").decode() != line:
            raise ValueError(
                f"{printable(line)}: found a name that is not UTF-8, which no protocol can hold: "
                "rename it"
            )


def _binds(file: Path) -> bool:
    """Return whether a file of a run's folder was made by the protocol as a whole.

    Phantoms and films of external tests, which a protocol that is refused may leave, have receipts
    of their own.
    """
    return not file.parts[0].startswith(("phantom", EXTERNAL))


def keep_protocol(run: Run) -> None:
    """Write a run's protocol into its folder, where another is there or none.

    Finished tests that another process has added since the run was opened are kept.
    """
    file = run.out / "protocol.toml"
    if rank() > 0 or run.protocol == _read_known(file):
        return
    make_folders(run.out)
    with locked(file, wait=PATIENCE):
        protocol = _with_finished_tests(run.protocol, _read_known(file), out=run.out)
        write_whole(file, protocol_text(protocol))


def _with_finished_tests(protocol: Protocol, known: Protocol | None, *, out: Path) -> Protocol:
    """Return a protocol with the finished tests that it does not name and the known one does."""
    kept = [one for one in _unnamed_tests(protocol, known) if is_tested(out, one.name)]
    return protocol.model_copy(update={"external": (*protocol.external, *kept)})


def is_tested(out: Path, name: str) -> bool:
    """Return whether a run's folder holds a finished external test of this name."""
    return (out / EXTERNAL / name / "evaluation" / RECEIPT).is_file()


def _unnamed_tests(protocol: Protocol, known: Protocol | None) -> tuple[External, ...]:
    """Return the external tests that the known protocol names and the other does not."""
    named = {one.name for one in protocol.external}
    return tuple(one for one in (known.external if known else ()) if one.name not in named)


def _say_unnamed(tests: tuple[External, ...], *, out: Path) -> None:
    """Tell which of the tests that a protocol does not name are kept, and which are not."""
    for kept in (True, False):
        names = [one.name for one in tests if is_tested(out, one.name) is kept]
        count = f"{counted(len(names), 'external test')} that the protocol does not name"
        if names and kept:
            say(
                f"{out} keeps {count} ({', '.join(names)}): to remove one, delete its folder, "
                f"{out / EXTERNAL / names[0]}, and its [[external]] in {out / 'protocol.toml'}"
            )
        elif names:
            say(f"{out} no longer has {count} ({', '.join(names)}): not finished; folders stay")


def _read_known(file: Path) -> Protocol | None:
    """Return the protocol that a run's folder keeps, as it stands there."""
    if not file.is_file():
        return None
    with _of_this_version(file, remedy=", or choose another --out"):
        return parse_protocol(tomllib.loads(file.read_text(encoding="utf-8")), name=str(file))


def _placed(protocol: Protocol, known: Protocol | None) -> Protocol:
    """Return a protocol whose places are absolute: its own, or the known ones if these are there.

    So a run finds its films from any working folder, and a place that was named once is kept.
    """
    kept, given = known.data.every if known else (), protocol.data.every
    same = kept if len(kept) == len(given) else [None] * len(given)
    pairs = enumerate(zip(given, same, strict=True))
    first, *others = (_placed_source(one, last, key=section_of(k)) for k, (one, last) in pairs)
    data = first.model_copy(update={"also": tuple(others)})
    earlier = {one.name: one for one in known.external} if known else {}
    tests = [
        _placed_source(one, earlier.get(one.name), key=f"external.{place}")
        for place, one in enumerate(protocol.external)
    ]
    return protocol.model_copy(update={"data": data, "external": tuple(tests)})


def _placed_source(own: AnySource, known: AnySource | None, *, key: str) -> AnySource:
    """Return one source of a protocol, called `key` there, as `_placed` does."""
    named = {name: getattr(own, name) for name in ("root", "exclude", "key")}
    absolute = {name: absolute_place(place) for name, place in named.items() if place}
    place = own.model_copy(update=absolute)
    lost = absent_places(place)
    if known is not None and place != known and lost and not absent_places(known):
        for name in lost:
            there = getattr(known, name)
            say(
                f"{key}.{name}: {getattr(place, name)} is not there, taken is the last one, {there}"
            )
        chosen = chosen_labels(own) != chosen_labels(known)  # no place, and refused later
        kept = [name for name in PLACES if not (chosen and name == "labels")]
        place = place.model_copy(update={name: getattr(known, name) for name in kept})
    return place


def _refuse_another(run: Run, known: Protocol) -> None:
    """Raise ValueError where a folder's work is of another protocol, or of other films."""
    found = differences(_binding(known), _binding(run.protocol))
    early = [one for one in found if not one.startswith(LATE)]
    if early:
        early.sort(key=lambda one: not one.startswith("data.source:"))  # from which others follow
        message = f"{run.out} holds a run of another protocol ({'; '.join(early[:3])})"
        raise ValueError(f"{message}: choose another folder (--out); nothing was changed")
    moved = run.protocol.data != known.data
    if moved and (run.out / "manifest" / RECEIPT).is_file():
        place = as_drawn(run.protocol.data, out=run.source / "phantom")
        inputs = inputs_of_sources(place, findings=run.protocol.findings)
        is_complete(run.out / "manifest", inputs=inputs)


def _binding(protocol: Protocol) -> dict[str, Any]:
    """Return what a run may be made from: neither places nor trackers, which only watch."""
    choices = without_places(protocol)
    for one in (choices, *choices["network"], *choices["variant"]):
        one.get("training", {}).pop("tracker", None)
    return choices


def _refuse_other_tests(run: Run, known: Protocol) -> None:
    """Raise ValueError where a folder has films of an external test that has other choices now.

    A test is known by its name. Its places may change as the run's own do, but not their content;
    that is also checked of a test that `known` does not name, but whose folder was kept. What is
    not finished may change while its places are there: it is made anew when the test is checked.
    """
    was, now = _choices_of_tests(known), _choices_of_tests(run.protocol)
    earlier = {one.name: one for one in known.external}
    for index, one in enumerate(run.protocol.external):
        folder = run.out / EXTERNAL / one.name
        if one == earlier.get(one.name) or not any(file.is_file() for file in folder.rglob("*")):
            continue
        if not is_tested(run.out, one.name) and not absent_places(one):
            continue
        key, choices = f"{EXTERNAL}.{index}", now[one.name]
        found = differences(was.get(one.name, choices), choices)
        with own_keys(key):
            found = found or other_films(external_run(run, one.name))
        if found:
            raise ValueError(
                f"{key} ({one.name}): {'; '.join(found[:3])}: the films of {folder} are of other "
                "choices: expected another name for this test, or delete that folder to make it "
                "anew; nothing was changed"
            )


def _choices_of_tests(protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Return the choices of every external test by name, without its places."""
    return {one["name"]: one for one in without_places(protocol)[EXTERNAL]}


def other_films(test: Run) -> list[str]:
    """Return what differs from what the films of an external test were drawn and read from."""
    data, found = test.protocol.data, list[str]()
    drawn, read = (inputs_of(test.out / name) for name in ("phantom", "manifest"))
    if drawn is not None and data.source == "phantom" and not data.root:
        found = differences(drawn, data.model_dump(include=KNOBS))
    if read is not None and not found:
        place = as_drawn(data, out=test.source / "phantom")
        found = differences(read, inputs_of_sources(place, findings=test.protocol.findings))
    return [one.removeprefix("data.") for one in found]


def how_to_move(run: Run, *keys: str) -> str:
    """Return how to name the new place of what a run no longer finds: `keys` of PLACES."""
    whole = read_protocol(run.source / "protocol.toml")
    until = "" if whole.sweep.space else " --until prepare"
    named = " ".join(f"--set data.{key}=NEW" for key in keys or ("root",))
    command = _command_of(whole, run.source)
    return f"where it has moved, name the new place once: {command}{until} {named}"


def require_pictures(run: Run, paths: Iterable[str]) -> None:
    """Raise ValueError unless all these files of films are there."""
    if lost := [file for file in paths if not film_exists(file)]:
        raise ValueError(
            f"{counted(len(lost), 'film', 'is/are')} not there ({lost[0]}, …): {how_to_move(run)}"
        )


def network_inputs(network: Path) -> dict[str, str]:
    """Return what names a trained network and its weights among the inputs of a stage.

    Raises ValueError where its files are damaged, which is no change of inputs.
    """
    weights = whole_weights(network)
    return {"network": fingerprint_of(network), "weights": weights}


def whole_weights(network: Path) -> str:
    """Return the fingerprint of a network's weights; ValueError where they are not whole."""
    file, known = network / WEIGHTS, read_metadata(network).weights
    if not file.is_file():
        raise ValueError(f"{file} is absent: {how_to_replace(network)}")
    weights = fingerprint_file(file)
    if known not in ("", weights):
        raise ValueError(f"{file} is damaged, or of another network: {how_to_replace(network)}")
    return weights


def refuse_trained_again(run: Path, network: str, *, weights: str) -> None:
    """Raise ValueError where a run's films were predicted by other weights than a network's now."""
    predicted = inputs_of(run / "predictions" / network) or {}
    if predicted.get("weights", weights) != weights:
        raise ValueError(
            f"{run / 'networks' / network} was trained again since the run's ensembles were made: "
            f"go on with {command_of(run)}, or name a network (--model)"
        )


def best_network(trained: Iterable[Path]) -> Path:
    """Return the folder of the network with the best macro AUC on validation films."""
    return max(trained, key=validation_auc)


def validation_auc(network: Path) -> float:
    """Return the validation macro AUC of the epoch whose weights were kept."""
    epoch = read_metadata(network).epoch
    known = read_history(network).set_index("epoch")["val_auc"].fillna(0).to_dict()
    if epoch not in known:
        raise ValueError(
            f"{network / 'history.csv'} holds no epoch {epoch}, whose weights were kept: "
            f"{how_to_replace(network)}"
        )
    return float(known[epoch])


def read_history(network: Path) -> pd.DataFrame:
    """Return what a network's training has written of every epoch: losses, AUC, seconds, speed."""
    remedy = how_to_replace(network)
    return read_table(network / "history.csv", text=(), columns=HISTORY, remedy=remedy)


def count_epochs(history: pd.DataFrame) -> int:
    """Return the epochs of a history, without the row of a head that was found anew."""
    return int(history["films_per_second"].notna().to_numpy().sum())


def describe_network(network: Path) -> dict[str, object]:
    """Return one row of the report's table of networks."""
    history, metadata = read_history(network), read_metadata(network)
    choice = next(n for n in metadata.protocol["network"] if n["name"] == network.name)
    origin = {"weights": choice["weights"], "provenance": metadata.provenance}
    return {
        "network": network.name,
        "parameters": metadata.parameters,
        **without_folders(origin),
        "epochs": count_epochs(history),
        "kept_epoch": metadata.epoch,
        "minutes": history["seconds"].iloc[-1] / 60,
        "films_per_second": history["films_per_second"].median(),
        "device": metadata.device,
    }


Member = tuple[str, int]  # variant and seed


@kept
def members(run: Run) -> dict[Member, Run]:
    """Return the run of the base and of every variant at every seed."""
    protocol = run.protocol
    names = [BASE, *(variant.name for variant in protocol.variant)]
    seeds = protocol.seeds or (protocol.training.seed,)
    return {(name, seed): _member(run, name, seed) for name in names for seed in seeds}


def _member(run: Run, name: str, seed: int) -> Run:
    """Return the run of a variant at one seed, which shares films and parts with `run`."""
    protocol, home = run.protocol.varied(name, seed=seed), run.out / "variants" / name
    member = open_run(protocol, out=home / f"seed-{seed}", workers=run.workers)
    if protocol.preparation != run.protocol.preparation:
        return replace(member, source=run.source, cache=home, shared=home)
    return sharing(member, films_of=run)


def sharing(run: Run, *, films_of: Run) -> Run:
    """Return a run that sees the prepared films and the parts of another."""
    return replace(run, source=films_of.source, cache=films_of.cache, shared=films_of.shared)


@kept
def external_run(run: Run, name: str) -> Run:
    """Return the run of an external test: its films as a source of its own, all else as `run`.

    Of a csv table that lacks columns for some findings, those are no findings of it.
    """
    choice = next(one for one in run.protocol.external if one.name == name)
    place = Source.model_validate(choice.model_dump(exclude={"name"}))
    findings = run.protocol.findings
    if not absent_places(place):
        findings = stated_findings(place, findings=findings)
    about = {"data": place, "findings": findings, "external": ()}
    out = run.out / EXTERNAL / name
    protocol = run.protocol.model_copy(update=about)
    return Run(protocol=protocol, out=out, workers=run.workers, source=out, cache=out, shared=out)


def open_run_folder(folder: Path) -> Run:
    """Return the run that a folder holds; raises ValueError for another, and for several."""
    protocol = read_kept(folder)
    if protocol.variant:
        raise ValueError(f"{folder} holds variants: name the folder of one, variants/NAME/seed-N")
    if protocol.sweep.space:
        raise ValueError(f"{folder} holds a sweep: name the folder of one, {FINALS}/NAME/seed-N")
    variants = folder.resolve().parent.parent
    whole = variants.parent / "protocol.toml"
    if variants.name == FINALS and whole.is_file():
        films = open_run(read_protocol(whole), out=variants.parent)
        return sharing(open_run(protocol, out=folder), films_of=films)
    if variants.name != "variants" or not whole.is_file():
        return open_run(protocol, out=folder)
    every = members(open_run(read_protocol(whole), out=variants.parent)).values()
    found = [one for one in every if one.out == folder.resolve()]
    return found[0] if found else open_run(protocol, out=folder)


def load_films(run: Run) -> Prepared:
    """Return the prepared films of a run; ValueError for those of another."""
    place = run.cache / "prepared"
    refuse_other_films(place, stage=run.out / "split")
    return load_prepared(place)


def refuse_other_films(place: Path, *, stage: Path) -> None:
    """Raise ValueError where a stage of a run was made from other prepared films."""
    known = (inputs_of(stage) or {}).get("prepared")
    if known and known != fingerprint_of(place):
        raise ValueError(
            f"{place} does not hold the films that {stage} was made from: bring that folder back, "
            "or delete it, and the run makes it anew"
        )


def read_kept(folder: Path) -> Protocol:
    """Return the protocol of a run's folder; ValueError where there is none that can be read."""
    file = folder / "protocol.toml"
    if not file.is_file():
        found = "is a file" if folder.is_file() else "holds no run"
        raise ValueError(f"{folder} {found}: expected the --out folder of `lucency run`")
    with _of_this_version(file):
        return read_protocol(file)


@contextmanager
def _of_this_version(file: Path, *, remedy: str = "") -> Iterator[None]:
    """Let an error in a protocol that a run keeps say why it is there."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{str(error).removeprefix(f'{file}: ')}: {file} was edited, or written by another "
            f"version than this, {version('lucency')}: use that version{remedy}"
        ) from error


def command_of(folder: Path) -> str:
    """Return the command that goes on with a run's folder, or the study or sweep that it is of."""
    home = folder.resolve().parent.parent.parent
    several = folder.resolve().parent.parent.name in ("variants", FINALS)
    if several and (home / "protocol.toml").is_file():
        folder = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    kept = read_kept(folder)
    return _command_of(kept, folder)


def _command_of(kept: Protocol, folder: Path) -> str:
    """Return the command that goes on with a folder of a protocol, as a shell takes it."""
    command = "study ablation" if kept.variant else "study sweep" if kept.sweep.space else "run"
    file, out = (shlex.quote(str(one)) for one in (folder / "protocol.toml", folder))
    return f"lucency {command} {file} --out {out}"


def require_prepared(run: Run) -> None:
    """Raise ValueError unless the run's films are prepared."""
    if not (run.cache / "prepared" / RECEIPT).is_file():
        raise ValueError(f"{run.out} has no prepared films: go on with {command_of(run.out)}")


def require_finished(run: Run) -> None:
    """Raise ValueError unless the run's films are prepared and all its networks trained."""
    done = [run.out / "networks" / network.name for network in run.protocol.network]
    if not all((place / RECEIPT).is_file() for place in (run.cache / "prepared", *done)):
        raise ValueError(
            f"{run.out} is not finished: expected its films prepared and all its networks trained; "
            f"go on with {command_of(run.out)}"
        )


def why_nothing_predicts(folder: Path) -> str:
    """Return why nothing in a folder predicts, and what to do."""
    if not folder.exists():
        return f"{folder}: no such folder; expected that of a run, of a network, or an exported one"
    if folder.is_file():
        return f"{folder} is a file; {_instead_of(folder)}"
    if (folder / MODEL_ONNX).is_file() or (folder / DATA).is_file():
        return f"{folder} holds no {MODEL}, which lucency export wrote: export the model anew"
    if (folder / WEIGHTS).is_file():
        return f"{folder} holds no {METADATA}: {how_to_replace(folder)}"
    if (folder / "protocol.toml").is_file():
        return f"{folder} has no trained network yet: go on with {command_of(folder)}"
    runs = sorted(file.parent for file in folder.glob("*/protocol.toml"))
    such = f", such as {runs[0]}" if runs else ""
    return f"{folder} holds no trained network: expected the folder of a run{such}"


def _instead_of(file: Path) -> str:
    """Return what to do where a file is named in place of the folder of what predicts."""
    if file.suffix == ".onnx":
        return f"expected a folder, with {MODEL} beside {MODEL_ONNX}: lucency export RUN --out DIR"
    if file.suffix in OF_WEIGHTS:
        return (
            "expected the folder of a run, which begins with such weights by lucency run PROTOCOL "
            f"--out DIR --set network.0.weights={file}"
        )
    return (
        "expected the folder of a run or of an exported model, which lucency run or lucency export "
        "made; films are named behind it"
    )


def what_is_lost(folder: Path) -> str:
    """Return what is absent of what the report of a run is about, as in a part of a copy, or ""."""
    page, known = folder / "report" / RECEIPT, folder / "protocol.toml"
    if not known.is_file():
        return known.name if (folder / "ensemble").is_dir() else ""
    if not page.is_file():
        return ""
    parts = [f"networks/{network.name}" for network in read_kept(folder).network]
    parts += ["ensemble/leaderboard"] if "ensemble" in read_json(page) else []
    return next((one for one in parts if not (folder / one / RECEIPT).is_file()), "")
