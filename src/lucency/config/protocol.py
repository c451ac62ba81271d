"""The protocol: every choice of an experiment, validated; TOML in, TOML out; the package's own."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from lucency.config import sections
from lucency.config.ensemble_section import EnsembleChoices
from lucency.config.search_space import Sweep, nested
from lucency.core.manifest import FINDINGS, NO_FINDING, Preparation, nearest
from lucency.core.progress import printable
from lucency.core.stores import url_of, with_home, without_credentials

BASE = "base"  # the name of the protocol without a variant
PLACES = ("root", "labels", "exclude", "key")  # keys of `data` that say where films and tables lie
NAMING = (*PLACES, "weights", "lists")  # keys whose value may be a place
TEXTS = ("note", "provenance")  # keys of free text, which may name some
_, LOCAL_NETWORK = sections.PLACES_OF_NETWORKS
BACKSLASH = "a backslash in \"…\" begins an escape in TOML: write / or quote the path with '…'"
DEVICES = ("device", "devices", "gpu", "gpus", "cuda")  # keys that other programs have
VARIABLE = ("preparation", "balance", "training", "network")
_COMPARABLE = f"variants of one experiment differ in {', '.join(VARIABLE)}"
_BEGIN = re.compile(r"(?:file:/+|[A-Za-z]:[\\/]|~(?:[A-Za-z][\w.-]*)?[\\/]|\.\.?[\\/]|/|\\\\)")
_PLACE = re.compile(rf"(?<![\w/\\.~-])(?!(?<=:)//){_BEGIN.pattern}(?:\S|[ ](?=\S*[\\/]\S))+")
_COST = re.compile(r"^(?:Cost: |(?=Needs ))(.+?)(?=\nResult|\nNot run|\n\n|\Z)", re.M | re.S)
_RESULT = re.compile(r"^(?:Result:? ?|(?=Not run))(.+?)(?=\n\n|\Z)", re.M | re.S)


class Protocol(sections.Choices):
    """The whole experiment."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    note: str = ""
    findings: tuple[str, ...] = Field(default=FINDINGS, min_length=1)
    data: sections.Source = sections.Source()
    external: tuple[sections.External, ...] = ()
    preparation: Preparation = Preparation()
    split: sections.Split = sections.Split()
    balance: sections.Balance = sections.Balance()
    training: sections.Training = sections.Training()
    network: tuple[sections.Network, ...] = Field(min_length=1)
    evaluation: sections.EvaluationChoices = sections.EvaluationChoices()
    explanation: sections.ExplanationChoices = sections.ExplanationChoices()
    ensemble: EnsembleChoices = EnsembleChoices()
    unfamiliar: sections.UnfamiliarChoices = sections.UnfamiliarChoices()
    seeds: tuple[sections.Seed, ...] = ()
    variant: tuple[sections.Variant, ...] = ()
    sweep: Sweep = Sweep()

    def _check(self) -> None:
        self._check_sources()
        self._check_networks()
        self._check_findings()
        names = [BASE, *(variant.name for variant in self.variant)]
        if len(set(names)) < len(names):
            raise ValueError(f"variant: expected each name once, none called {BASE!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected each once")
        if self.seeds and not self.variant:
            raise ValueError("seeds are those of variants: list some, or set training.seed")
        if self.variant:
            self._leave_seeds_to_the_ablation()
            for name in names:
                self.varied(name, seed=0)
        if self.sweep.space:
            self._check_sweep()

    def _check_sources(self) -> None:
        if self.data.also and self.split.method == "official":
            raise ValueError(
                'split.method "official" deals by the lists of one source, and data.also names '
                'more: set it to "patient", or leave them out'
            )
        shifted = [one.source for one in self.data.every if one.source in sections.SHIFTED_DATES]
        if self.split.method == "time" and shifted:
            raise ValueError(
                f'split.method is "time": the dates of {shifted[0]} are shifted, patient by '
                'patient, and have no order: choose another, such as "patient"'
            )
        tests = [one.name for one in self.external]
        if len(set(tests)) < len(tests):
            raise ValueError(f"external: found {', '.join(tests)}, expected each name once")

    def _check_networks(self) -> None:
        names, explained = [network.name for network in self.network], self.explanation.network
        if len(set(names)) < len(names):
            raise ValueError("network: a name is listed twice; expected each once")
        if self.balance.before_split and self.split.method != "image":
            raise ValueError('balance.before_split leaks: it needs split.method = "image"')
        self._check_trainings(names)
        if explained and explained not in names:
            found, known = f"explanation.network: {explained!r}", ", ".join(names)
            raise ValueError(f"{found} is not trained; expected of {known}")
        self.ensemble.check(tuple(names), split=self.split.method, size=self.preparation.size)
        late = {
            "ensemble": self.ensemble != EnsembleChoices(),
            "unfamiliar": self.unfamiliar != sections.UnfamiliarChoices(),
            "external": self.external,
        }
        for section in (name for name, there in late.items() if self.variant and there):
            raise ValueError(f"{section} and variant: expected one; state one variant alone")

    def _check_trainings(self, names: list[str]) -> None:
        for place, name in enumerate(names):
            try:
                training = self.training_of(name)
            except ValidationError as error:
                changes = self.network[place].training
                why = _explain(error, changes, within="training.")
                raise ValueError(f"network.{place}.training.{why}") from error
            if training.precision != self.training.precision:
                what = f"network.{place}.training.precision is {training.precision!r}"
                raise ValueError(f"{what}: expected training.precision for all networks")
            self._check_weights(training.loss, network=name)
            if training.loss in sections.HARD_LABELS and self.data.is_soft:
                raise ValueError(
                    f"training.loss {training.loss!r} of {name} knows no soft labels, which "
                    'data.uncertain or data.readers "soft" makes: change one of them'
                )

    def _check_weights(self, loss: str, *, network: str) -> None:
        weighing = {self.balance.method, self.balance.then} & sections.WEIGHING
        if loss in sections.UNWEIGHTED and weighing:
            raise ValueError(
                f"training.loss {loss!r} of {network} compares films or findings and reads no "
                f"weights, which balance {min(weighing)!r} makes: change one of them"
            )

    def _check_findings(self) -> None:
        if len(set(self.findings)) < len(self.findings):
            raise ValueError(f"findings: found {', '.join(self.findings)}, expected each once")
        known = (*self.findings, NO_FINDING)
        for rule in (*self.balance.cap, *self.balance.copy_plan, *self.balance.cap_after):
            if rule.finding not in known:
                hint = nearest(rule.finding, known)
                raise ValueError(f"balance: {rule.finding!r} is not among the findings{hint}")

    def _leave_seeds_to_the_ablation(self) -> None:
        own = [f"network {n.name}: training.seed" for n in self.network if "seed" in n.training]
        own += ["training.seed"] if self.seeds and self.training.seed else []
        own += ["balance.seed"] if self.balance.seed not in (0, self.training.seed) else []
        if own:
            raise ValueError(f"{own[0]} is set: expected `seeds` alone, for all variants")

    def varied(self, variant: str, *, seed: int) -> Protocol:
        """Return the protocol of one variant, or of the base, at one seed, without variants.

        The seed is that of training and of balancing. Raises ValueError when a variant changes
        nothing, what all must share, or a key that does not exist.
        """
        base = self.model_dump(exclude={"variant", "seeds", "sweep"})
        changes = {v.name: v.changes for v in self.variant}.get(variant, {})
        _refuse_foreign(variant, changes)
        seeds = {"training": {"seed": seed}, "balance": {"seed": seed}}
        choices = _merged(_merged(base, changes), seeds)
        try:
            same = Protocol.model_validate(_merged(base, seeds))
            made = Protocol.model_validate(choices)
        except ValidationError as error:
            raise ValueError(f"variant {variant!r}: {_explain(error, choices)}") from error
        _refuse_incomparable(variant, made, same)
        return made

    def _check_sweep(self) -> None:
        """Raise ValueError unless every key of the space exists, has an effect, and may be so."""
        self._check_searched()
        for key in self.sweep.space:
            if not any(self._has_effect(key, beside=end) for end in (0, 1)):
                raise ValueError(f"sweep.space: {key!r} has no effect: another key overrules it")
        for candidate in self.sweep.corners():
            self.candidate(candidate)

    def _has_effect(self, key: str, *, beside: int) -> bool:
        """Return whether a key changes a trial, beside the first or last values of all others."""
        others = {other: self.sweep.ends(other)[beside] for other in self.sweep.space}
        one, other = (self.candidate({**others, key: end}) for end in self.sweep.ends(key))
        return _effective(one) != _effective(other)

    def _check_searched(self) -> None:
        """Raise ValueError unless this is one network, on parts by patient, at seeds of its own."""
        if self.variant:
            raise ValueError("sweep and variant: expected one of them")
        if len(self.network) != 1:
            names = ", ".join(network.name for network in self.network)
            raise ValueError(f"sweep: found the networks {names}, expected one, which is searched")
        if self.split.method == "image" or self.balance.before_split:
            raise ValueError("sweep: validation films need patients of their own: split by patient")
        if "seed" in self.network[0].training:
            found = self.network[0].name
            raise ValueError(f"sweep: training.seed seeds {found} alone: expected it in [training]")
        own = self.training.seed
        if own in self.sweep.seeds:
            raise ValueError(f"sweep.seeds: {own} is training.seed, at which trials are trained")

    def candidate(self, choices: Mapping[str, Any]) -> Protocol:
        """Return the protocol with the values that a trial gives to keys, without its sweep.

        Raises ValueError, naming the values, for a key that does not exist or a value out of its
        bounds.
        """
        made = self.model_dump(exclude={"variant", "seeds", "sweep"})
        changes = nested(choices)
        made["network"] = list(made["network"])
        for place, below in changes.pop("network", {}).items():
            if not place.isdigit() or int(place) >= len(made["network"]):
                known = "0" if len(made["network"]) == 1 else f"0 to {len(made['network']) - 1}"
                raise ValueError(f"sweep.space: network.{place}: expected network.{known}")
            made["network"][int(place)] = _merged(made["network"][int(place)], below)
        made = _merged(made, changes)
        try:
            return Protocol.model_validate(made)
        except ValidationError as error:
            named = ", ".join(f"{key} = {json.dumps(one)}" for key, one in choices.items())
            raise ValueError(f"sweep.space ({named}): {_explain(error, made)}") from error

    def __repr__(self) -> str:
        names = ", ".join(network.name for network in self.network)
        return f"<Protocol {self.name}: {self.data.source}, {names}>"

    def training_of(self, network: str) -> sections.Training:
        """Return the training of one network: the common choices and what it changes."""
        changes = next(n.training for n in self.network if n.name == network)
        return sections.Training.model_validate({**self.training.model_dump(), **changes})


def read_protocol(file: str | Path, *, changes: Sequence[str] | None = None) -> Protocol:
    """Read a TOML protocol and apply `key=value` changes (value in TOML, or a bare word).

    `file` is a path, or the name of one of the package's protocols, such as "quick". A relative
    `data.root`, `data.exclude` or `data.key` is relative to the protocol's folder; in `changes`,
    and in the package's own protocols, to the working folder. Raises ValueError in one line that
    names the key, what was found and what was expected.
    """
    file = find_protocol(file)
    if file.is_dir():
        raise ValueError(f"{file} is a folder; expected a protocol, a file ending in .toml")
    if not file.is_file():
        raise ValueError(f"{file}: no such protocol; `lucency protocols` lists those at hand")
    choices = _read_toml(file)
    if file.resolve().parent != protocol_folder().resolve():
        _place(choices, file.parent)
    for change in changes or ():
        _apply(choices, change)
    return parse_protocol(choices, name=str(file))


def _read_toml(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    try:
        choices = tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "UTF-16" if wide else "no UTF-8 (Windows-1252 perhaps)"
        raise ValueError(f"{file}: found {found}, expected UTF-8: save it as UTF-8") from error
    except RecursionError:
        raise ValueError(f"{file}: not valid TOML: its tables lie too deep in each other") from None
    except ValueError as error:  # also of numbers of thousands of digits
        escape = re.search("Unescaped|hex value", str(error))
        hint = BACKSLASH if escape else "expected lines such as epochs = 3, below one as [training]"
        raise ValueError(f"{file}: not valid TOML: {error}; {hint}") from error
    for name, places in _sources(choices).items():
        for key in PLACES:
            if re.search(r"[\x00-\x1f]", str(places.get(key, ""))):
                raise ValueError(f"{file}: {name}.{key}: found {places[key]!r}; {BACKSLASH}")
    return _with_home(choices)


def _with_home(value: Any) -> Any:
    """Return what TOML holds with the home folder in all text that begins with ~/, as places do."""
    if isinstance(value, dict):
        return {key: _with_home(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_with_home(below) for below in value]
    return with_home(value) if isinstance(value, str) else value


def _sources(choices: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tables of sources in a protocol as it is written, by where they stand."""
    data = choices.get("data")
    tables = {"data": data}
    for name, several in {
        "data.also": data.get("also") if isinstance(data, dict) else None,
        "external": choices.get("external"),
    }.items():
        for place, one in enumerate(several if isinstance(several, list) else []):
            tables[f"{name}.{place}"] = one
    return {name: one for name, one in tables.items() if isinstance(one, dict)}


def parse_protocol(choices: Mapping[str, object], *, name: str) -> Protocol:
    """Validate the choices of a protocol called `name` in error messages."""
    try:
        return Protocol.model_validate(choices)
    except ValidationError as error:
        raise ValueError(f"{name}: {_explain(error, choices)}") from error


def parse_external(
    choices: Mapping[str, object], *, changes: Sequence[str] | None = None
) -> sections.External:
    """Return the external test of `choices`, keys of `[[external]]`, and `key=value` changes.

    Raises ValueError in one line, as `read_protocol` does.
    """
    changed: dict[str, Any] = dict(choices)
    for change in changes or ():
        _apply(changed, change.removeprefix("data."))  # as messages name a source's keys
    try:
        return sections.External.model_validate(changed)
    except ValidationError as error:
        why = _explain(error, changed, within="data.")
        raise ValueError(f"external test: {why}") from error


def without_places(protocol: Protocol) -> dict[str, Any]:
    """Return all choices but PLACES: what makes an experiment the same wherever its films lie.

    Where `labels` is no place but a choice of labels, it is among them.
    """
    of_each = {"__all__": {*PLACES}}
    places = {"data": {**dict.fromkeys(PLACES, True), "also": of_each}, "external": of_each}
    choices = protocol.model_dump(mode="json", exclude=places)
    tables = (choices["data"], *choices["data"]["also"], *choices["external"])
    sources = (protocol.data, *protocol.data.also, *protocol.external)
    for table, source in zip(tables, sources, strict=True):
        if chosen := chosen_labels(source):
            table["labels"] = chosen
    return choices


def chosen_labels(source: sections.Source) -> str:
    """Return what `labels` chooses among a collection's own, "" where it names a file or nothing.

    A choice is a word such as "negbio" or "2023", or a folder below the root.

    >>> chosen_labels(sections.Source(source="mimic-cxr", labels="negbio"))
    'negbio'
    >>> chosen_labels(sections.Source(source="mimic-cxr", labels="tables/mine.csv"))
    ''
    """
    labels = Path(source.labels)
    names_a_place = bool(labels.suffix) or labels.is_absolute()
    return "" if names_a_place or source.source not in sections.COLLECTED else source.labels


def protocol_text(protocol: Protocol) -> str:
    """Return the complete protocol as TOML, every default written out that TOML can hold."""
    return _text(protocol.model_dump(mode="json", exclude_none=True))


def _text(choices: dict[str, Any]) -> str:
    return _tables(choices, "").replace("\x7f", "\\u007f")


def shown_text(protocol: Protocol) -> str:
    """Return `protocol_text` for a page that is given away, as `without_folders` has it."""
    return _text(without_folders(protocol.model_dump(mode="json", exclude_none=True)))


def without_folders(value: Any, key: str = "") -> Any:
    r"""Return choices, or the one of a key, with the last part alone of places of this machine.

    Folders bear names of people and of hospitals. URLs of stores stay.

    >>> without_folders({"weights": "/data/ada/w.pth", "lists": {"train": "ada/train.txt"}})
    {'weights': '.../w.pth', 'lists': {'train': '.../train.txt'}}
    >>> without_folders(["local-dir:../ada/net", "C:\\films", "a/b"])
    ['local-dir:.../net', '.../films', 'a/b']
    >>> without_folders("films of ~/ada/set and others, https://a.org/b", "provenance")
    'films of .../set and others, https://a.org/b'
    """
    if isinstance(value, dict):
        return {k: without_folders(v, key if key == "lists" else k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one, key) for one in value]
    return _without_folders(value, key.rpartition(".")[2]) if isinstance(value, str) else value


def _without_folders(text: str, name: str) -> str:
    if name in TEXTS:
        return text_without_folders(text)
    if text.startswith(LOCAL_NETWORK):
        return LOCAL_NETWORK + _last_part(text.removeprefix(LOCAL_NETWORK))
    is_place = _BEGIN.match(text) or (name in NAMING and not url_of(text))
    return _last_part(text) if is_place else text


def text_without_folders(text: str) -> str:
    """Return a text with the last part alone of places of this machine in it."""
    return _PLACE.sub(lambda found: _last_part(found[0]), text)


def _last_part(place: str) -> str:
    parts = re.split(r"[\\/]+", place.rstrip("\\/"))
    return f".../{parts[-1]}" if len(parts) > 1 else place


class ListedProtocol(NamedTuple):
    """What the comment at the head of a protocol states; empty where it states nothing."""

    name: str
    about: str
    cost: str
    result: str


def list_protocols() -> list[ListedProtocol]:
    """Return the package's protocols by name, with what their comments state."""
    return [_listed(file) for file in _package_files()]


def _listed(file: Path) -> ListedProtocol:
    lines = file.read_text(encoding="utf-8").splitlines()
    head = takewhile(lambda line: line.startswith("#"), lines)
    text = "\n".join(line.removeprefix("#").strip() for line in head)
    about = " ".join(text.partition("\n\n")[0].split())
    found = [pattern.search(text) for pattern in (_COST, _RESULT)]
    cost, result = (" ".join(match[1].split()) if match else "" for match in found)
    first_sentence = re.split(r"(?<=[.?!]) (?=[A-Z])", about)[0]
    return ListedProtocol(file.stem, first_sentence, cost, result.lstrip(",: "))


def find_protocol(protocol: str | Path) -> Path:
    """Return the file of a protocol: its path, or one of the package by name, such as "quick".

    Raises ValueError for a name that is none of theirs.
    """
    file = Path(protocol)
    known = {one.stem: one for one in _package_files()}
    if file.is_dir() and str(protocol) in known:
        return known[file.name]  # and not the folder of its run
    if file.exists() or file.suffix or len(file.parts) != 1:
        return file
    if file.name not in known:
        raise ValueError(
            f"{file}: no such protocol; expected a .toml file or a name that lucency protocols "
            f"lists{nearest(file.name, known)}"
        )
    return known[file.name]


def protocol_folder() -> Path:
    """Return the folder of the protocols: in the installed package, or in the repository."""
    package = Path(str(files("lucency")))
    installed = package / "protocols"
    return installed if installed.is_dir() else package.parents[1] / "protocols"


def _package_files() -> list[Path]:
    return sorted(protocol_folder().glob("*.toml"))


def _refuse_foreign(variant: str, changes: Mapping[str, Any]) -> None:
    """Refuse keys that all variants share, sections that are none, and a seed of its own."""
    for key, value in changes.items():
        if key not in VARIABLE:
            raise ValueError(f"variant {variant!r} may not change {key!r}: {_COMPARABLE}")
        kind = list if key == "network" else dict
        fits = isinstance(value, kind)
        if not fits:
            raise ValueError(f"variant {variant!r}: {key} is {value!r}, expected a {kind.__name__}")
        if "seed" in value:
            raise ValueError(f"variant {variant!r} sets {key}.seed: expected `seeds` for all")


def _refuse_incomparable(variant: str, made: Protocol, base: Protocol) -> None:
    if own := [network.name for network in made.network if "seed" in network.training]:
        raise ValueError(f"variant {variant!r} seeds {own[0]} alone: expected `seeds` for all")
    if variant != BASE and _effective(made) == _effective(base):
        raise ValueError(f"variant {variant!r} changes nothing: name a key, {_COMPARABLE}")
    names = [[network.name for network in one.network] for one in (made, base)]
    if names[0] != names[1]:
        found, expected = (", ".join(each) for each in names)
        raise ValueError(f"variant {variant!r} has the networks {found}; expected {expected}")
    if made.balance.before_split:
        raise ValueError(f"variant {variant!r} balances before the split: its parts are others")


def _effective(protocol: Protocol) -> list[object]:
    """Return what a run does, in whichever section it is set."""
    about = [network.model_dump(exclude={"training"}) for network in protocol.network]
    trained = [protocol.training_of(network.name).deciding for network in protocol.network]
    return [protocol.preparation, protocol.balance, about, trained]


def _tables(choices: Mapping[str, Any], prefix: str) -> str:
    """Return nested choices as TOML, which the standard library reads but does not write."""
    plain = {k: v for k, v in choices.items() if not isinstance(v, dict) and not _is_tables(v)}
    lines = [f"{_key(k)} = {json.dumps(v, ensure_ascii=False)}" for k, v in plain.items()]
    for name, value in choices.items():
        key = _key(name)
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]", _tables(value, f"{prefix}{key}.")]
        elif _is_tables(value):
            lines += [f"\n[[{prefix}{key}]]\n{_tables(v, f'{prefix}{key}.')}" for v in value]
    return "\n".join(lines)


def _key(name: str) -> str:
    """Return a key as TOML has it: quoted where it is more than letters, digits, - and _."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _merged(choices: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `choices` with the leaves of `changes` put in.

    Lists are replaced as a whole, and so is a section whose `method` changes.
    """
    merged = dict(choices)
    for key, value in changes.items():
        below: Any = merged.get(key)
        inside = isinstance(value, dict) and isinstance(below, dict)
        if inside and value.get("method", below.get("method")) == below.get("method"):
            value = _merged(below, value)
        merged[key] = value
    return merged


def _place(choices: dict[str, Any], folder: Path) -> None:
    """Let what is relative among the places of films begin in `folder`."""
    for source in _sources(choices).values():
        for key in ("root", "exclude", "key"):
            if isinstance(source.get(key), str) and source[key]:
                source[key] = url_of(source[key]) or str(folder / source[key])


def _apply(choices: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not (equals and all(map(str.strip, key.split(".")))):
        raise ValueError(
            f"--set {printable(change)}: expected key=value, for example training.epochs=3"
        )
    *path, last = key.strip().split(".")
    place: Any = choices
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # also of numbers of thousands of digits
        value = text.strip()
    value = _with_home(value)
    try:
        for step in path:
            place = place[_number(step)] if isinstance(place, list) else place.setdefault(step, {})
        place[_number(last) if isinstance(place, list) else last] = value
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        found = f"{place}"
        if isinstance(place, list):
            found = f"a list of {len(place)}, counted from 0, such as network.0.name"
        raise ValueError(
            f"--set {printable(change)}: no such key, found {printable(found)}"
        ) from error


def _number(text: str) -> int:
    """Return a place in a list; ValueError for text that is not written as one, such as -1."""
    if str(number := int(text)) != text or number < 0:
        raise ValueError(text)
    return number


def _explain(error: ValidationError, choices: object, *, within: str = "") -> str:
    """Return one line on what is wrong with the `choices`, at the place that a protocol has it.

    They are a whole protocol, or a section of it, whose keys begin with `within`.
    """
    errors = error.errors(include_url=False)
    places = [_place_of(one, choices) for one in errors]
    begin = places[0]  # of a key of several types, each type has an error; the deepest says most
    same = [row for row, one in enumerate(places) if one[: len(begin)] == begin]
    row = max(same, key=lambda row: len(places[row]))
    section, key = ("", "", *begin)[-2:]
    either = EITHER.get(f"{section}.*") or EITHER.get(key, "")
    if len(places[row]) > len(begin) or len(errors[row]["loc"]) == len(begin) or not either:
        return _explain_one(errors[row], ".".join(places[row]), within)
    found = errors[row]["input"]
    hint = nearest(found, re.findall(r'"([^"]+)"', either)) if isinstance(found, str) else ""
    shown = _shown(found)
    return f"{'.'.join(begin)}: found {shown[:80]}, expected {either}{hint}"


def _place_of(error: ErrorDetails, choices: object) -> tuple[str, ...]:
    """Return the steps to a wrong choice without those that name a type that a key may have."""
    place = list[str]()
    value: Any = choices
    for step in error["loc"]:
        if _has(value, step):
            value = value[step]
        elif error["type"] != "missing":
            continue
        place.append(str(step))
    return tuple(place)


def _has(value: object, step: int | str) -> bool:
    if isinstance(value, list | tuple):
        return isinstance(step, int)
    return isinstance(value, Mapping) and step in value


def nearest_key(place: str) -> str:
    """Return the end of an error about a key that is none: the one that may have been meant.

    >>> nearest_key("training.epoch"), nearest_key("data.clahe_tile")
    ("; nearest is 'epochs'", "; nearest is 'preparation.clahe_tiles'")
    >>> nearest_key("epochs"), nearest_key("training.size")
    ('; expected training.epochs', '; expected data.size, preparation.size or network.0.size')
    """
    section, _, key = place.rpartition(".")
    if key in DEVICES:
        return "; leave it out: GPUs are found, and CUDA_VISIBLE_DEVICES chooses among them"
    keys = {name: [*part.model_fields] for name, part in _sections().items()}
    if homes := [f"{name}.{key}" for name, known in keys.items() if name and key in known]:
        listed = filter(None, (", ".join(homes[:-1]), homes[-1]))
        return f"; expected {' or '.join(listed)}"
    own = keys.get(re.sub(r"\.\d+\b", ".0", section), [])
    if hint := nearest(key, own):
        return hint
    places = {one: f"{name}.{one}" for name, known in keys.items() if name for one in known}
    return re.sub("'(.+)'", lambda found: repr(places[found[1]]), nearest(key, places))


def _sections() -> dict[str, type[BaseModel]]:
    """Return the sections of a protocol by how their keys are written; of a list the first."""
    found = {
        name: field.annotation
        for name, field in Protocol.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    listed = {"network.0": sections.Network, "network.0.head": sections.Head}
    return {"": Protocol, **found, **listed, "balance.cap.0": sections.Cap}


def _shown(value: object) -> str:
    """Return a value as JSON; of a number of thousands of digits, which Python shows none, that."""
    try:
        return json.dumps(value, default=str)
    except ValueError:
        return "a number of thousands of digits"


def _explain_one(first: ErrorDetails, place: str, within: str) -> str:
    found = without_credentials(_shown(first["input"]))
    if first["type"] == "extra_forbidden":
        hint = nearest_key(within + place)
        if not hint and isinstance(first["input"], dict | list) and place in first["loc"]:
            known = [name for name in _sections() if name and "." not in name]
            expected = ", ".join([*known, "network", "external"])
            return f"{printable(place)}: unknown section; expected one of {expected}"
        return f"{printable(place)}: unknown key{hint}"
    if first["type"] == "missing":
        return f"{place} is missing: a protocol needs it"
    if first["type"] == "too_short":
        return f"{place}: found an empty list, expected one or more"
    if first["type"] in EXPECTED:
        expected = EXPECTED[first["type"]].format(**first.get("ctx", {}))
        if first["type"] == "literal_error":
            expected += nearest(str(first["input"]), re.findall(r"'([^']*)'", expected))
        if first["type"] == "tuple_type" and isinstance(first["input"], dict):
            expected += f": write [[{place}]]"
        return f"{place}: found {found[:80]}, expected {expected}"
    message = first["msg"].removeprefix("Value error, ")
    whole = not place or (first["type"] == "value_error" and isinstance(first["input"], dict))
    return (f"{place}: " if place else "") + message + ("" if whole else f", found {found[:80]}")


EITHER = {  # of keys of several types, and of all keys of a section, what may stand there
    "uncertain": "one of "
    + ", ".join(f'"{one}"' for one in get_args(sections.Uncertain))
    + ", or a table of those by finding",
    "align.*": 'one finding, a list of findings, or "" for none',
}
EXPECTED = {  # in place of pydantic's messages, by the kind of error
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    "string_type": "text",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "tuple_type": "a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table of keys"),
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "small letters, digits and hyphens alone",
}
