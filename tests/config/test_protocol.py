"""Protocols: every file reads, text and protocol are one, and a wrong choice is one clear line."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.config.protocol import (
    Protocol,
    parse_external,
    parse_protocol,
    protocol_text,
    read_protocol,
    shown_text,
)
from lucency.config.sections import Choices, EvaluationChoices, Network, Source
from lucency.core.manifest import FINDINGS, Preparation

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = 'name = "small"\n[[network]]\nname = "densenet121"\n'
FULL = """
name = "full"
findings = ["Mass", "Edema", "No Finding"]
[data]
source = "csv"
label_noise = 1e-12
[balance]
method = "cap-and-copy"
cap = [{ finding = "Mass", films = 0 }, { finding = "No Finding", films = 5000 }]
[[balance.copy_plan]]
finding = "Edema"
copies = 26
sharpen = 0.3
[[network]]
name = "alexnet"
training = { learning_rate = 1e-4, optimizer = "sgd" }
[[network]]
name = "other"
weights = "file.pth"
provenance = "ImageNet"
"""
TEXT = st.text(st.characters(exclude_categories=("Cs",)))


def read(folder: Path, text: str, *changes: str) -> Protocol:
    file = folder / "protocol.toml"
    file.write_text(text, encoding="utf-8")
    return read_protocol(file, changes=changes)


def reread(protocol: Protocol, folder: Path) -> Protocol:
    return read(folder, protocol_text(protocol))


@pytest.mark.parametrize("file", sorted((ROOT / "protocols").glob("*.toml")), ids=lambda f: f.stem)
def test_every_protocol_of_the_repository_reads(file: Path):
    protocol = read_protocol(file)
    assert protocol.name == file.stem
    assert parse_protocol(tomllib.loads(protocol_text(protocol)), name=file.stem) == protocol


@pytest.mark.parametrize("key", ["root", "exclude"])
def test_a_place_begins_in_the_protocol_s_folder_and_a_change_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
):
    monkeypatch.chdir(ROOT)
    text = f'{SMALLEST}\n[data]\nsource = "csv"\n{key} = "../films"\nlabels = "table.csv"\n'
    data = read(tmp_path, text).data
    assert Path(getattr(data, key)) == tmp_path / "../films"
    assert data.labels == "table.csv"  # begins in the root
    assert getattr(read(tmp_path, text, f"data.{key}=films").data, key) == "films"
    assert getattr(read(tmp_path, text, f"data.{key}=").data, key) == ""
    absolute = text.replace("../films", str(tmp_path))
    assert getattr(read(tmp_path, absolute).data, key) == str(tmp_path)


def test_unfamiliar_means_nothing_without_a_score_or_beside_variants():
    network = {"name": "p", "network": [{"name": "densenet121"}]}
    with pytest.raises(ValueError, match='refused means nothing to score "none"'):
        parse_protocol({**network, "unfamiliar": {"refused": 0.1}}, name="p")
    varied = {"variant": [{"name": "focal", "training": {"loss": "focal"}}]}
    stored = {"unfamiliar": {"score": "energy"}}
    with pytest.raises(ValueError, match="unfamiliar and variant: expected one"):
        parse_protocol({**network, **varied, **stored}, name="p")


def test_a_place_of_a_protocol_of_the_package_begins_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert read_protocol("chestxray14").data.root == "data/chestxray14"
    assert read_protocol(ROOT / "protocols" / "chestxray14.toml").data.root == "data/chestxray14"


def test_a_protocol_and_its_text_are_one(tmp_path: Path):
    protocol = read(tmp_path, FULL)
    assert reread(protocol, tmp_path) == protocol
    assert protocol_text(reread(protocol, tmp_path)) == protocol_text(protocol)
    assert protocol.balance.cap[1].films == 5000
    assert protocol.training_of("alexnet").optimizer == "sgd"
    assert protocol.training_of("other") == protocol.training


@given(st.tuples(TEXT, TEXT), st.floats(1e-300, 10), st.floats(0, 1e300))
@settings(max_examples=80, deadline=None)
def test_any_text_and_number_survives(texts: tuple[str, str], rate: float, decay: float):
    choices = {
        "name": "any",
        "note": texts[0],
        "training": {"learning_rate": rate, "weight_decay": decay},
        "network": [{"name": "n", "weights": "w", "provenance": texts[1] + "."}],
    }
    protocol = parse_protocol(choices, name="any")
    read_back = parse_protocol(tomllib.loads(protocol_text(protocol)), name="any")
    assert read_back == protocol


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("traning = {}", "traning: unknown key; nearest is 'training'"),
        ("[training]\nepoch = 3", "training.epoch: unknown key; nearest is 'epochs'"),
        ("[preparation]\nclahe_tile = 3", "unknown key; nearest is 'clahe_tiles'"),
        ("[training]\nxyzzy = 3", r"training.xyzzy: unknown key$"),
        ("[training]\nepochs = 0", "training.epochs: found 0, expected 1 or more"),
        ("[training]\nepochs = 'three'", 'training.epochs: found "three", expected a whole number'),
        ("[training]\nepochs = 2.5", "training.epochs: found 2.5, expected a whole number"),
        ("[training]\nlearning_rate = nan", "training.learning_rate: .*finite"),
        ("[training]\nweight_decay = inf", "training.weight_decay: .*finite"),
        ("[training]\noptimizer = 'adamm'", "'adam', 'adamw' or 'sgd'; nearest is 'adam'"),
        ("[split]\ntrain = 0.9", r"split: train \+ val \+ test is 1.2, not 1"),
        ("[balance]\nmethod = 'cap-and-copy'\nbefore_split = true", "leaks: it needs split.method"),
        (
            "[balance]\nmethod = 'cap-and-copy'\ncap = [{ finding = 'Hernai', films = 1 }]",
            "'Hernai'.*nearest is 'Hernia'",
        ),
        ("[balance]\nratio = 3", "ratio means nothing to 'none'; it belongs to partial"),
        ("[balance]\nthen = 'ml-ros'", "follows nothing"),
        (
            "[balance]\nmethod = 'cap-and-copy'\nthen = 'mlsmote'\ncopies_at = 'native'",
            "copies_at is native: 'mlsmote' mixes films",
        ),
        ("[[network]]\nname = '..'", "name '..' names a folder"),
        ("[split]\napart = 1.0", "split.apart: found 1.0, expected a number below 1"),
        ("findings = []", "findings: found an empty list, expected one or more"),
        ("name = 'Two Words'", "name: found .*, expected small letters, digits and hyphens"),
        ("network = 'densenet121'", 'network: .*found "densenet121"'),
        ("network = []", "network: found an empty list, expected one or more"),
        ("[[network]]\nname = 'small'\n[[network]]\nname = 'small'", "network: a name is listed"),
        ("[[network]]\nweights = 'a.pth'\nname = 'x'", "network.0: weights from a file need"),
        ("[[network]]\nname = 'x'\ntraining = { epoch = 1 }", "network.0.training.epoch: unknown"),
        ("[[network]]\nname = 'x'\ntraining.epochs = 0", "network.0.training.epochs: .*found 0"),
    ],
)
def test_a_wrong_choice_is_one_line_that_names_it(text: str, message: str):
    with pytest.raises(ValueError, match=message) as refusal:
        parse_protocol(tomllib.loads(SMALLEST) | tomllib.loads(text), name="spoilt.toml")
    assert str(refusal.value).startswith("spoilt.toml: ")
    assert "\n" not in str(refusal.value)


POLICIES = '"ignore", "zeros", "ones", "soft"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[data]\nsource = 'csv'\nuncertain = 'ignor'",
            f'data.uncertain: found "ignor", expected one of {POLICIES}, or a table of those by '
            "finding; nearest is 'ignore'",
        ),
        (
            "[data]\nsource = 'csv'\nuncertain = 3",
            f"data.uncertain: found 3, expected one of {POLICIES}, or a table of those by finding",
        ),
        (
            "[data]\nsource = 'csv'\nuncertain = { Mass = 'ignor' }",
            'data.uncertain.Mass: found "ignor", expected '
            "'ignore', 'zeros', 'ones' or 'soft'; nearest is 'ignore'",
        ),
        (
            "[[data.also]]\nsource = 'csv'\nalign = { str = 3 }",
            'data.also.0.align.str: found 3, expected one finding, a list of findings, or "" for '
            "none",
        ),
        (
            "[data.align]\nuncertain = 3",
            'data.align.uncertain: found 3, expected one finding, a list of findings, or "" for '
            "none",
        ),
        (
            "[data.uncertain]\nalign = 3",
            "data.uncertain.align: found 3, expected 'ignore', 'zeros', 'ones' or 'soft'",
        ),
        ("[data]\nalign = { X = ['Mass', 3] }", "data.align.X.1: found 3, expected text"),
        ("[data]\nalign = 3", "data.align: found 3, expected a table of keys"),
        (
            "[[network]]\nname = 'x'\nhead.stage = 'two'",
            'network.0.head.stage: found "two", expected a whole number',
        ),
        (
            "[training]\nfrozen = []",
            "training.frozen: expected a share from 0 to 1, or the name of a layer, found []",
        ),
        (
            "[[network]]\nname = 'x'\ntraining.frozen = []",
            "network.0.training.frozen: expected a share from 0 to 1, or the name of a layer, "
            "found []",
        ),
        (
            "[preparation]\ndenoise = 'medain'",
            'preparation.denoise: found "medain", expected \'median',
        ),
    ],
)
def test_a_key_of_several_types_is_named_as_the_protocol_has_it(text: str, message: str):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        parse_protocol(tomllib.loads(SMALLEST) | tomllib.loads(text), name="p")
    assert str(refusal.value).startswith(f"p: {message}")


def test_every_key_of_several_types_has_a_test():
    sections = {*Choices.__subclasses__(), *Source.__subclasses__(), Protocol, Preparation}
    several = {
        key
        for section in sections
        for key, field in section.model_fields.items()
        if "|" in str(field.annotation) or "Union" in str(field.annotation)
    }
    swept = {"space", "low", "high", "step"}  # of tests/config/test_search_space.py
    assert several == {"uncertain", "align", "stage", "frozen", *swept}


def test_the_protocol_that_these_tests_spoil_is_good(tmp_path: Path):
    assert read(tmp_path, SMALLEST).findings == FINDINGS


def test_a_protocol_with_the_mark_of_an_editor_is_read(tmp_path: Path):
    (tmp_path / "marked.toml").write_text(SMALLEST, encoding="utf-8-sig")
    assert read_protocol(tmp_path / "marked.toml") == read(tmp_path, SMALLEST)


def test_a_file_that_is_absent_or_no_toml(tmp_path: Path):
    with pytest.raises(ValueError, match="no such protocol; `lucency protocols` lists"):
        read_protocol(tmp_path / "demo.toml")
    with pytest.raises(ValueError, match=r"protocol.toml: not valid TOML: .* \(at line 1"):
        read(tmp_path, "name = ?")
    for content, found in ((b'name = "\xe4"', "no UTF-8"), ("a".encode("utf-16"), "UTF-16")):
        (tmp_path / "latin.toml").write_bytes(content)
        with pytest.raises(ValueError, match=f"latin.toml: found {found}.* save it as UTF-8"):
            read_protocol(tmp_path / "latin.toml")


@pytest.mark.parametrize("place", [r"C:\temp\new", r"D:\films", r"C:\Users\me", r"\\host\share"])
def test_a_backslash_in_a_place_is_explained(tmp_path: Path, place: str):
    text = f'{SMALLEST}\n[data]\nsource = "csv"\nlabels = "a.csv"\nroot = '
    if not place.startswith("\\"):
        with pytest.raises(ValueError, match="begins an escape in TOML: write /"):
            read(tmp_path, f'{text}"{place}"')
    assert read(tmp_path, f"{text}'{place}'").data.root.endswith(place)


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("training.epochs=3", "training.epochs", 3),
        ("training.optimizer=sgd", "training.optimizer", "sgd"),
        ('note="a = b"', "note", "a = b"),
        ("data.root=../shared/nih", "data.root", "../shared/nih"),
        ("split={ train = 0.8, val = 0.1, test = 0.1 }", "split.train", 0.8),
        ('findings=["Mass"]', "findings", ("Mass",)),
        ("network.0.name=alexnet", "network.0.name", "alexnet"),
        ("network.0.training.epochs=7", "network.0.training", {"epochs": 7}),
        ('network=[{ name = "mobilenetv2" }]', "network", (Network(name="mobilenetv2"),)),
    ],
)
def test_a_change_arrives(tmp_path: Path, change: str, key: str, value: object):
    place: object = read(tmp_path, SMALLEST, change)
    for step in key.split("."):
        place = place[int(step)] if isinstance(place, tuple) else getattr(place, step)
    assert place == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epochs", "expected key=value, for example training.epochs=3"),
        ("network.-1.name=alexnet", "no such key, found a list of 1, counted from 0"),
        ("network.1.name=alexnet", "no such key, found a list of 1, counted from 0"),
        ("network.name=alexnet", "no such key, found a list of 1, counted from 0"),
        ("network.x.name=alexnet", "no such key, found a list of 1, counted from 0"),
        ("name.first=small", "no such key, found small"),
        ("name.first.second=small", "no such key, found small"),
        ("training.epoch=1", "training.epoch: unknown key; nearest is 'epochs'"),
        ("network.0.nmae=alexnet", "network.0.nmae: unknown key; nearest is 'name'"),
        ("network.0=alexnet", 'network.0: .*found "alexnet"'),
        ("=3", "expected key=value, for example training.epochs=3"),
        (".epochs=3", "expected key=value, for example training.epochs=3"),
        ("seeds=[1," + "9" * 5000 + "]", "seeds: found .*, expected a list"),
        ("training.seed=0x" + "f" * 5000, "training.seed: found a number of thousands of digits"),
    ],
)
def test_a_change_of_nothing_is_one_line(tmp_path: Path, change: str, message: str):
    with pytest.raises(ValueError, match=message) as refusal:
        read(tmp_path, SMALLEST, change)
    assert "\n" not in str(refusal.value)


def test_a_protocol_is_frozen(tmp_path: Path):
    protocol = read(tmp_path, SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        setattr(protocol.training, "epochs", 3)  # noqa: B010


def test_a_finding_is_named_once() -> None:
    with pytest.raises(ValueError, match="findings: found Mass, Mass, expected each once"):
        parse_protocol(
            {"name": "p", "findings": ["Mass", "Mass"], "network": [{"name": "alexnet"}]}, name="p"
        )


def test_a_change_of_a_source_may_be_named_as_messages_name_it():
    about = {"name": "x", "source": "csv", "root": "films"}
    for change in ("allow_missing=true", "data.allow_missing=true"):
        assert parse_external(about, changes=[change]).allow_missing


def test_usual_levels_of_sets_change_no_network_of_before():
    usual = {"recalibration": "platt", "threshold": "f1", "recall": 0.9}
    assert EvaluationChoices().deciding == usual
    other = EvaluationChoices(error=0.2, missed=0.05)
    assert other.deciding == {**usual, "error": 0.2, "missed": 0.05}
    assert other.levels == {"error": 0.2, "missed": 0.05}
    assert other.scoring == EvaluationChoices().scoring
    assert not {*other.levels} & {*other.scoring}


# --- what was written before


@pytest.mark.parametrize(("was", "now"), [("false", "none"), ("true", "tensorboard")])
def test_a_protocol_of_before_trackers_reads(tmp_path: Path, was: str, now: str):
    """Protocols had `tensorboard`, in [training], in a network's training and in a variant's."""
    old = SMALLEST + f"training = {{ tensorboard = {was} }}\n[training]\ntensorboard = {was}\n"
    protocol = read(tmp_path, old)
    assert protocol.training.tracker == protocol.training_of("densenet121").tracker == now
    assert reread(protocol, tmp_path) == protocol
    variant = f"[[variant]]\nname = 'other'\ntraining = {{ tensorboard = {was}, epochs = 3 }}\n"
    assert read(tmp_path, SMALLEST + variant).varied("other", seed=0).training.tracker == now


@pytest.mark.parametrize("keys", ['tensorboard = true\ntracker = "mlflow"', "tensorboard = 1"])
def test_an_earlier_name_beside_the_new_one_or_with_another_value_is_refused(
    tmp_path: Path, keys: str
):
    with pytest.raises(ValueError, match=r"training: .*tensorboard is the earlier name of tracker"):
        read(tmp_path, f"{SMALLEST}[training]\n{keys}\n")


def test_a_variant_that_differs_in_its_tracker_alone_changes_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="variant 'other' changes nothing"):
        read(tmp_path, SMALLEST + '[[variant]]\nname = "other"\ntraining = { tracker = "wandb" }\n')


def test_no_folder_of_this_machine_is_on_a_page_wherever_a_protocol_names_it():
    home = "/data/zelda"
    network = {"name": "one", "architecture": f"local-dir:{home}/net", "weights": f"{home}/w.pth"}
    network |= {"provenance": f"films of {home}/set and (../zelda/b)"}
    frozen = {"name": "two", "weights": "C:\\Users\\zelda\\w.pth", "provenance": "~/zelda/set"}
    choices = {
        "name": "mine",
        "note": f"made in {home}/x",
        "data": {"source": "nih", "root": "../../zelda/films", "exclude": "zelda/none.txt"},
        "external": [{"name": "far", "source": "csv", "root": f"{home} b/far", "labels": "a.csv"}],
        "split": {"method": "lists", "lists": {"train": f"{home}/a.txt", "test": "zelda/b.txt"}},
        "balance": {"method": "mltl", "features": frozen},
        "network": [network],
        "ensemble": {"frozen": [frozen], "sources": ["frozen two"], "neighbours": 3},
    }
    shown = tomllib.loads(shown_text(parse_protocol(choices, name="mine")))
    assert "zelda" not in str(shown)
    assert shown["external"][0]["labels"] == "a.csv"
    assert shown["ensemble"]["frozen"][0]["weights"] == ".../w.pth"
    late = ("external", "ensemble")
    varied = {key: value for key, value in choices.items() if key not in late}
    varied["variant"] = [{"name": "other", "network": [network | {"weights": "zelda/v.pth"}]}]
    assert "zelda" not in shown_text(parse_protocol(varied, name="mine"))


def test_a_seed_that_libraries_do_not_take_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"training\.seed.*4294967296"):
        read(tmp_path, SMALLEST + "[training]\nseed = 4294967296\n")


def test_a_key_with_ends_of_lines_is_named_in_one(tmp_path: Path):
    with pytest.raises(ValueError, match="unknown key") as refused:
        read(tmp_path, SMALLEST + '"one\\u0085two\\u000bthree" = 1\n')
    assert len(str(refused.value).splitlines()) == 1


def test_a_place_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    places = 'source = "csv"\nroot = "~/films"\nexclude = "~/odd.csv"\nlabels = "a~.csv"\n'
    also = f"[[data.also]]\n{places.replace('films', 'others')}\n"
    text = f'{SMALLEST}weights = "~/w.pth"\nprovenance = "ImageNet"\n[data]\n{places}{also}'
    protocol = read(tmp_path, text)
    home = str(tmp_path / "home")
    assert (protocol.data.root, protocol.data.exclude) == (f"{home}/films", f"{home}/odd.csv")
    assert protocol.data.also[0].root == f"{home}/others"
    assert protocol.network[0].weights == f"{home}/w.pth"
    assert protocol.data.labels == "a~.csv"
    for value in ("~/new", '"~/new"'):
        assert read(tmp_path, text, f"data.root={value}").data.root == f"{home}/new"
    assert parse_external({"source": "csv", "name": "x"}, changes=["root=~"]).root == home
