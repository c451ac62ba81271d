"""What the documents show is run, and what they list is compared with the code."""

import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from commanded import fetch_nothing, named_commands, serve_nothing
from lucency.cli.app import app
from lucency.config import sections as keys
from lucency.config.ensemble_section import EnsembleChoices
from lucency.config.protocol import Protocol, parse_protocol
from lucency.config.search_space import Span, Sweep
from lucency.core.manifest import FINDINGS, Preparation
from lucency.core.predictions import Predictions
from lucency.data.image_measures import MEASURES
from lucency.evaluation.metrics import METRICS
from workplace import (
    FILMS,
    LITE0,
    SIZE,
    build_workplace,
    stated_labels,
    write_protocol,
    write_sweep,
)

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "sources").glob("*.md")),
]
LOG = ROOT / "dev" / "log.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SLOW = re.compile(
    r"runs/|exported|lucency\.models|as lu|^\$ accelerate|review/sample"
    r"|^\$ lucency (run|train|predict|report|explain|ensemble|similar|results) (?!-)"
    r"|^\$ lucency study"
)
DEMO = ("run", "protocols/demo.toml", "--out", "runs/demo")
MADE_FIRST = {  # what a block names, and the command that makes it
    "invented": ("data", "phantom", "--out", "invented", "--films", "600", "--size", "128",
                 "--seed", "1"),
    "runs/demo": DEMO,
    "runs/seeds": (*DEMO[:-1], "runs/seeds", "--set", "training.seed=1", "--set",
                   "network.0.size=32"),
    "runs/first": ("run", "first.toml", "--out", "runs/first"),
    "runs/longer": ("run", "first.toml", "--out", "runs/longer", "--set", "training.epochs=6"),
    "exported": ("export", "runs/demo", "--out", "exported"),
    "runs/own": ("run", "own.toml", "--out", "runs/own"),
}  # fmt: skip
MADE_OF = {"invented": "first.toml", "runs/demo": "exported/"}  # what is made of it, by a block
WORDS = re.compile(
    r"\b(told|said|asked|anybody|drawn anew|redrawn|knows? nothing)\b", re.IGNORECASE
)
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
HEADINGS: dict[str, type[BaseModel]] = {
    "## The experiment": Protocol,
    "## `[data]`": keys.Source,
    "## `[preparation]`": Preparation,
    "## `[split]`": keys.Split,
    "## `[balance]`": keys.Balance,
    "### `[[balance.cap]]`": keys.Cap,
    "### `[[balance.copy_plan]]`": keys.Copy,
    "## `[training]`": keys.Training,
    "## `[[network]]`": keys.Network,
    "### `[network.head]`": keys.Head,
    "## `[evaluation]`": keys.EvaluationChoices,
    "## `[explanation]`": keys.ExplanationChoices,
    "## `[ensemble]`": EnsembleChoices,
    "## `[unfamiliar]`": keys.UnfamiliarChoices,
    "## `[[variant]]`": keys.Variant,
    "## `[sweep]`": Sweep,
    "### `[sweep.space]`": Span,
}


class Block(NamedTuple):
    """A fenced block, or one line of a console: where it stands, its language and its text."""

    place: str
    language: str
    text: str


def blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for fence in FENCE.finditer(text):
            place = f"{document.name}:{text[: fence.start()].count(chr(10)) + 1}"
            pieces = fence[2].splitlines() if fence[1] == "console" else [fence[2]]
            found += [Block(place, fence[1], piece) for piece in pieces]
    return found


def params(language: str) -> list[Any]:
    """The blocks of a language; those that train or need a trained network are slow."""
    mine = [b for b in blocks() if b.language == language]
    slow = [[pytest.mark.slow] * bool(SLOW.search(b.text)) for b in mine]
    names = [f"{b.place} {b.text}" if language == "console" else b.place for b in mine]
    return [pytest.param(b, marks=m, id=n) for b, m, n in zip(mine, slow, names, strict=True)]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where all that the documents' commands name exists, but small."""
    place = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("os.cpu_count", lambda: 1)
        build_workplace(place)
        for name in ("film.png", "a.png"):
            shutil.copy("films/00000001_000.png", name)
        labels = stated_labels(Path("chestxray14/Data_Entry_2017_v2020.csv"))
        labels.to_csv("films/labels.csv", index=False)
        listed = Path("train.txt").read_text().split()
        for name, films in (("train", listed[5:]), ("val", listed[:5])):
            Path(f"{name}.txt").write_text("\n".join(films))
        write_protocols()
        yield place


def write_protocols() -> None:
    """Write what the documents' commands name, small."""
    demo = [{"name": "mobilenetv2"}, {"name": "inceptionresnetv2", "architecture": "test_convnext"}]
    board = {"ensembles": ["greedy"], "neighbours": 20, "sources": ["inceptionresnetv2"]}
    drawn = {"films": FILMS, "size": SIZE}
    write_small("protocols/demo.toml", drawn, network=demo, ensemble=board)
    write_small("protocols/chestxray14.toml", {"source": "nih", "root": "elsewhere"})
    variant = [{"name": "ml-ros", "balance": {"method": "ml-ros"}}]
    few = {"variant": variant, "seeds": [0, 1], "network": [{"name": "test_convnext"}]}
    write_small("protocols/ablation-balance.toml", drawn, **few)
    flawed = {"balance": {"method": "cap-and-copy", "before_split": True}}
    flawed["split"] = {"method": "image"}
    write_small("protocols/reference.toml", {"source": "nih", "root": "elsewhere"}, **flawed)
    write_small("protocols/reference-sample.toml", drawn, **flawed)
    right = {"balance": {"method": "cap-and-copy"}}
    write_small("protocols/study.toml", {"source": "nih", "root": "elsewhere"}, **right)
    honest = {"balance": {"method": "cap-and-copy"}, "network": [{"name": "test_convnext"}]}
    write_small("protocols/leak.toml", drawn, **honest)
    write_sweep(Path("protocols/sweep.toml"))
    write_studies(drawn)
    page = (ROOT / "docs" / "first-experiment.md").read_text()
    first = next(f[2] for f in FENCE.finditer(page) if f[1] == "toml")
    Path("first.toml").write_text(first.replace("densenet121", "test_convnext"))
    own = {"source": "csv", "root": "films", "labels": "labels.csv"}
    write_small("own.toml", own, findings=["Infiltration", "Effusion"])


@pytest.fixture
def at_work(
    workplace: Path, block: Block, monkeypatch: pytest.MonkeyPatch, figures_once: None
) -> None:
    """Go to the workplace; what the block names is there, made once."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", ["document"])
    monkeypatch.setattr("lucency.deploy.start.run_server", serve_nothing)
    monkeypatch.setattr("lucency.data.download.download", fetch_nothing)
    for name, command in MADE_FIRST.items():
        needed = re.search(rf"{name}\b", block.text) and f"--out {name}" not in block.text
        if needed or (name in MADE_OF and MADE_OF[name] in block.text):
            lucency(*command)
    if "--out review" in block.text:
        shutil.rmtree("review", ignore_errors=True)
    if "review/sample" in block.text:
        shutil.rmtree("review", ignore_errors=True)
        lucency(*DEMO)
        lucency("audit", "review", "runs/demo", "--out", "review", "--films", "6")
        form = pd.read_csv("review/form.csv", dtype=str)
        form.assign(reviewer="A. B.", answer="yes").to_csv("filled.csv", index=False)


def lucency(*words: str) -> str:
    """Run the command in this process and return its answer; 600 films of 128 are 100 of 64."""
    words = tuple({"600": "100", "128": "64"}.get(word, word) for word in words)
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code in ((0, 1) if words[0] == "check" else (0,)), done.output
    return done.stdout


def write_studies(drawn: dict[str, Any]) -> None:
    """Write the protocols of studies of preparation, whose network has weights."""
    for name in ("preparation-sample", "preparation-phantom"):
        write_small(f"protocols/{name}.toml", drawn, findings=["Effusion"], network=[LITE0])


def write_small(file: str, films: dict[str, Any], **parts: object) -> None:
    """Write a small protocol with the network that the documents name."""
    networks = [{"name": "mobilenetv2"}, {"name": "test_convnext"}]
    write_protocol(Path(file), films, **{"network": networks, **parts})


def test_every_block_has_a_language_that_is_tested() -> None:
    assert {block.language for block in blocks()} == {"python", "toml", "console", "text"}
    for text in map(Path.read_text, DOCUMENTS):
        assert text.count("```") == 2 * len(FENCE.findall(text))


@pytest.mark.parametrize("block", params("toml"))
def test_toml_is_a_protocol_or_a_part_of_one(block: Block) -> None:
    least = {"name": "part", "network": [{"name": "densenet121"}]}
    parse_protocol({**least, **tomllib.loads(block.text)}, name=block.place)


@pytest.mark.parametrize("block", params("python"))
@pytest.mark.usefixtures("at_work")
def test_python_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = lambda body, choice: (f"timm {choice.name}", body.state_dict())  # noqa: E731 - no network here
    monkeypatch.setattr("lucency.models.weights._published", fetched)
    names: dict[str, Any] = {"__name__": "document"}
    if " as lu\n" in block.text:
        names |= reader_s_names()
    own = Path("protocol.toml")
    own.write_text(Path("protocols/demo.toml").read_text())
    exec(compile(block.text, block.place, "exec"), names)
    own.unlink()  # a folder with this file is a run


def reader_s_names() -> dict[str, Any]:
    """The arrays and predictions that a reader of the library's examples has."""
    random = np.random.default_rng(0)
    label = random.integers(0, 2, (60, 2)).astype(np.float32)
    noise = random.uniform(size=(2, 60, 2)).astype(np.float32)
    one, two = (0.3 * label + 0.7 * noise).astype(np.float32)
    ids, names = np.arange(60) // 2, ("Effusion", "Mass")
    pa, pb = (
        Predictions(
            network=name, split="", findings=names, image=np.arange(60).astype(str), patient=ids,
            part=np.full(60, "test"), label=label, logit=np.log(prob / (1 - prob)),
            feature=np.empty((60, 0), dtype=np.float32),
        )
        for name, prob in (("a", one), ("b", two))
    )  # fmt: skip
    return {"y": label, "prob": one, "ids": ids, "names": names, "pa": pa, "pb": pb}


@pytest.mark.parametrize("block", params("console"))
@pytest.mark.usefixtures("at_work")
def test_command_runs(block: Block) -> None:
    program, *words = shlex.split(block.text.removeprefix("$ "))
    COMMANDS[program](*words)


def find_targets(*words: str) -> None:
    text = (ROOT / "Makefile").read_text()
    assert [w for w in words or ("",) if not re.search(rf"^{w}:", text, re.MULTILINE)] == []


def run_launched(*words: str) -> None:
    """Let accelerate parse its options, and run here what it would launch."""
    from accelerate.commands.launch import launch_command_parser

    parsed = launch_command_parser().parse_args(list(words[1:]))
    assert (words[0], parsed.module, parsed.training_script) == ("launch", True, "lucency")
    lucency(*parsed.training_script_args)


def test_what_is_wrong_is_found() -> None:
    """The guards above can fail."""
    with pytest.raises(AssertionError):
        find_targets("cake")
    with pytest.raises(ValueError, match="unknown key"):
        test_toml_is_a_protocol_or_a_part_of_one(Block("here", "toml", "[split]\nsede = 1"))
    with pytest.raises(AssertionError, match="--fast"):
        lucency("run", "--fast")


@pytest.mark.parametrize("document", [*DOCUMENTS, LOG], ids=lambda document: document.name)
def test_named_files_and_headings_exist(document: Path) -> None:
    text = document.read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text)
    named = [(document.parent / name if name else document, anchor) for name, anchor in linked]
    named += [(ROOT / name, "") for name in re.findall(r"protocols/[\w-]+\.toml", text)]
    missing = [file for file, _ in named if not file.exists() and file.parent.name != "api"]
    assert [str(file) for file in missing] == []
    broken = [(file.name, a) for file, a in named if a and a not in anchors(file.read_text())]
    assert broken == []


def anchors(text: str) -> set[str]:
    """The names by which GitHub and the site link to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {name.replace(" ", "-") for name in words}


def test_examples_on_the_demo_name_films_that_the_demo_has() -> None:
    pages = [(name, command.help or "") for name, command in named_commands().items()]
    for place, text in [*((b.place, b.text) for b in blocks()), *pages]:
        if "runs/demo" in text:
            assert not re.search(r"[\s\"]films(/|\s--)", text), f"{place}: {text}"


def test_no_target_shows_an_error_that_is_ignored() -> None:
    assert "\n\t-" not in (ROOT / "Makefile").read_text()


def test_the_readme_names_every_package() -> None:
    tree = next(b.text for b in blocks() if b.place.startswith("README") and "src/" in b.text)
    named = re.findall(r"^  (\w+)/  ", tree, re.MULTILINE)
    there = {file.parent.name for file in (ROOT / "src" / "lucency").glob("*/__init__.py")}
    assert len(named) == len(there)
    assert set(named) == there


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_documents_use_the_words_of_the_field(document: Path) -> None:
    assert WORDS.findall(document.read_text()) == []


def test_the_glossary_has_the_words_of_the_field() -> None:
    terms = {
        "baseline", "ground truth", "confidence interval", "inference", "heat map", "embedding",
        "cross-validation", "preprocessing", "calibration", "leaderboard", "data set",
    }  # fmt: skip
    rows = table_under("## Words of the field", document="glossary.md")
    named = {term for word, _ in rows for term in word.split(", ")}
    assert terms <= named


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_the_folders_of_a_run_are_listed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    lucency(*DEMO)
    listed = next(
        b.text for b in blocks() if b.place.startswith("index") and "runs/demo/" in b.text
    )
    there = {place.name for place in Path("runs/demo").iterdir() if place.suffix != ".log"}
    assert there <= set(re.findall(r"^  ([\w.]+)", listed, re.MULTILINE))


def test_every_metric_has_its_meaning() -> None:
    rows = table_under("## Metrics", document="evaluation.md")
    listed = {name: (unit, better) for name, unit, better, _ in rows}
    assert listed == {f"`{name}`": (m.unit, m.better) for name, m in METRICS.items()}


def test_every_measure_of_pictures_has_its_meaning() -> None:
    rows = table_under("## The choice of CLAHE's parameters", document="preparation.md")
    expected = [[f"`{name}`", m.unit, m.meaning, m.source] for name, m in MEASURES.items()]
    assert rows == expected


def test_every_command_and_option_is_explained() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    for name, command in named_commands().items():
        options = [o for p in command.params for o in p.opts if o.startswith("--")]
        assert [word for word in (f"`{name}`", *options) if word not in text] == []


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_key_of_a_protocol_is_explained(heading: str) -> None:
    rows = table_under(heading, document="protocol.md")
    fields = HEADINGS[heading].model_fields.items()
    expected = [[f"`{key}`", default_of(key, field), values_of(field)] for key, field in fields]
    assert [row[:3] for row in rows] == expected
    assert all(row[3] for row in rows)


def test_every_part_of_a_protocol_has_a_table() -> None:
    classes = [value for value in vars(keys).values() if isinstance(value, type)]
    models = [m for m in classes if issubclass(m, BaseModel) and not m.__name__.startswith("_")]
    assert set(HEADINGS.values()) == {
        *models,
        Protocol,
        Preparation,
        EnsembleChoices,
        Sweep,
        Span,
    } - {
        BaseModel,
        keys.Choices,
        keys.External,  # has the keys of [data], and a name
    }


def table_under(heading: str, *, document: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    section = (ROOT / "docs" / document).read_text().split(f"\n{heading}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def default_of(key: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        return "needed"
    if isinstance(default, BaseModel):
        return f"`[{key}]`"
    if default is None:  # which TOML states by leaving the key out
        return "\N{EN DASH}"
    return "the 14" if default == FINDINGS else f"`{json.dumps(default)}`"


def values_of(field: FieldInfo) -> str:
    """What a key accepts: its choices, its pattern or its bounds."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in get_args(field.annotation))
    signs = [(s, getattr(m, n)) for m in field.metadata for n, s in BOUNDS.items() if hasattr(m, n)]
    patterns = [f"`{m.pattern}`" for m in field.metadata if hasattr(m, "pattern")]
    return (
        ", ".join([*patterns, *(f"{sign} {limit:.12g}" for sign, limit in signs)]) or "\N{EN DASH}"
    )


def install(*words: str) -> None:
    assert words == ("install", ".")
    assert (ROOT / "pyproject.toml").is_file()


COMMANDS = {
    "make": find_targets, "lucency": lucency, "accelerate": run_launched, "pip": install,
}  # fmt: skip
