"""Variants: what a protocol may vary, and the whole ablation on toys, done once and found again."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lucency.cli.output import do_stage
from lucency.config.protocol import BASE, Protocol, parse_protocol, protocol_text, read_protocol
from lucency.core.manifest import load_prepared
from lucency.core.predictions import Predictions, load_predictions
from lucency.pipeline import ablation_study as ablation
from lucency.pipeline import stages
from lucency.pipeline.run import Run, open_run
from toys import FINDINGS, toy_films

NETWORK = "test_convnext"
SEEDS = (0, 4)
PROTOCOL = """
name = "tiny"
findings = ["Left", "Right"]
seeds = [0, 4]

[data]
source = "csv"
root = "films"
labels = "toys.csv"

[preparation]
size = 32

[training]
epochs = 1
batch = 16
precision = "float32"

[[network]]
name = "test_convnext"

[evaluation]
resamples = 40

[[variant]]
name = "copied"
balance = { method = "weighted-sampler" }

[[variant]]
name = "brighter"
preparation = { brightness = 40 }
"""
VARIANTS = ("copied", "brighter")


def protocol(*changes: str, without: str = "") -> Protocol:
    choices = tomllib.loads(PROTOCOL)
    for text in changes:
        choices |= tomllib.loads(text)
    choices.pop(without, None)
    return parse_protocol(choices, name="tiny.toml")


# --- what a protocol may vary


def test_a_variant_changes_what_it_names_and_nothing_else():
    several = protocol('variant = [{ name = "longer", training = { epochs = 5 } }]')
    base, longer = (several.varied(name, seed=3) for name in (BASE, "longer"))
    assert longer.training.epochs == 5
    assert longer.training == base.training.model_copy(update={"epochs": 5})
    assert longer.model_copy(update={"training": base.training}) == base
    for member in (base, longer):
        assert (member.training.seed, member.balance.seed) == (3, 3)
        assert (member.variant, member.seeds) == ((), ())


def test_another_method_begins_with_its_own_defaults():
    text = """
        balance = { method = "partial", ratio = 3, positive_weight = 4 }
        variant = [
          { name = "ros", balance = { method = "ml-ros" } },
          { name = "wider", balance = { ratio = 5 } },
        ]
    """
    several = protocol(text)
    ros, wider = (several.varied(name, seed=0).balance for name in ("ros", "wider"))
    assert (ros.method, ros.ratio, ros.positive_weight) == ("ml-ros", 10, 2)
    assert (wider.method, wider.ratio, wider.positive_weight) == ("partial", 5, 4)


def test_a_protocol_of_variants_and_its_text_are_one():
    several = protocol()
    again = parse_protocol(tomllib.loads(protocol_text(several)), name="again")
    assert again == several
    assert again.varied("brighter", seed=1) == several.varied("brighter", seed=1)


REFUSED = {
    "split": ('split = { seed = 1 }', "'v' may not change 'split': .* preparation, balance"),
    "data": ('data = { films = 30 }', "'v' may not change 'data'"),
    "findings": ('findings = ["Left"]', "'v' may not change 'findings'"),
    "evaluation": ('evaluation = { threshold = "youden" }', "'v' may not change 'evaluation'"),
    "nothing": ("", "'v' changes nothing: name a key"),
    "a section misspelt": ("trainig = { epochs = 3 }", "'v' may not change 'trainig'"),
    "a key misspelt": ("training = { epoch = 3 }", "'v': training.epoch: .*is 'epochs'"),
    "a value": ("training = { epochs = 0 }", "'v': training.epochs: .*found 0"),
    "a key of another method": ('balance = { method = "ml-ros", ratio = 3 }', "'v': .*ratio means"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_impossible_variant_is_refused_before_any_work(tmp_path: Path, what: str):
    text, message = REFUSED[what]
    file = tmp_path / "tiny.toml"
    file.write_text(f'{PROTOCOL}\n[[variant]]\nname = "v"\n{text}\n')
    with pytest.raises(ValueError, match=message) as refusal:
        read_protocol(file)
    assert str(refusal.value).startswith(f"{file}: variant ")
    assert "\n" not in str(refusal.value)
    file.write_text(f'{PROTOCOL}\n[[variant]]\nname = "v"\ntraining = {{ epochs = 3 }}\n')
    assert read_protocol(file).variant[-1].name == "v"


def test_names_and_seeds_that_clash_are_refused():
    one = '{ name = "v", training = { epochs = 3 } }'
    for names in (f"[{one}, {one}]", '[{ name = "base", training = { epochs = 3 } }]'):
        with pytest.raises(
            ValueError, match="variant: expected each name once, none called 'base'"
        ):
            protocol(f"variant = {names}")
    with pytest.raises(ValueError, match=r"seeds: found \[1, 1\], expected each once"):
        protocol("seeds = [1, 1]")
    with pytest.raises(ValueError, match=r"seeds\.0: found -1, expected 0 or more"):
        protocol("seeds = [-1]")
    with pytest.raises(ValueError, match="seeds are those of variants"):
        protocol(without="variant")
    with pytest.raises(ValueError, match="expected small letters, digits and hyphens"):
        protocol('variant = [{ name = "../up", training = { epochs = 3 } }]')


LEAKS = """
split = { method = "image" }
balance = { method = "cap-and-copy", before_split = true }
"""
ACCEPTED = {
    "a section that is a word": 'variant = [{ name = "v", balance = "ml-ros" }]',
    "a section that is a number": 'variant = [{ name = "v", training = 3 }]',
    "a change to what is so": 'variant = [{ name = "v", training = { epochs = 1 } }]',
    "a seed, which seeds overrule": 'variant = [{ name = "v", training = { seed = 9 } }]',
    "other networks": 'variant = [{ name = "v", network = [{ name = "test_resnet" }] }]',
    "parts made of balanced films": LEAKS,
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_variant_that_cannot_be_compared_should_be_refused_before_any_work(what: str):
    with pytest.raises(ValueError, match="variant"):
        protocol(ACCEPTED[what])


LATE = {
    "a base that balances before the split": LEAKS
    + 'variant = [{ name = "v", balance = { method = "ml-ros" } }]',
    "a seed of a network's own": """
        network = [{ name = "test_convnext", training = { seed = 3 } }]
        variant = [{ name = "v", training = { epochs = 3 } }]
    """,
    "films mixed twice": """
        variant = [{ name = "v", balance = { method = "mlsmote", then = "mlsol" } }]
    """,
}


@pytest.mark.parametrize("what", LATE)
def test_these_too_should_be_refused_before_any_work(what: str):
    with pytest.raises(ValueError, match="tiny"):
        protocol(LATE[what])


# --- the whole


def write_films(folder: Path) -> None:
    films = toy_films(96)
    folder.mkdir()
    for name, film in zip(films.manifest.image, films.pixels, strict=True):
        cv2.imwrite(str(folder / name), film)
    table = pd.DataFrame(films.manifest.label, columns=list(FINDINGS))
    about = {"image": films.manifest.image, "patient": films.manifest.patient}
    table.assign(**about).to_csv(folder / "toys.csv", index=False)


def opened(folder: Path, **choices: Any) -> Run:
    """Return the run as a new process opens it: nothing is remembered."""
    made = protocol(f'data = {{ source = "csv", root = "{folder}/films", labels = "toys.csv" }}')
    return open_run(made.model_copy(update=choices), out=folder / "out", workers=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_films(folder / "films")
    answer = do_stage(opened(folder), "report")
    assert answer["report"] == folder / "out" / "report" / "report.html"
    assert str(answer["conclusion"]).startswith(f"Macro AUC of {NETWORK}: ")
    return folder


def member(folder: Path, name: str, seed: int) -> Path:
    return folder / "out" / "variants" / name / f"seed-{seed}"


def every_member(folder: Path) -> dict[tuple[str, int], Path]:
    return {
        (name, seed): member(folder, name, seed) for name in (BASE, *VARIANTS) for seed in SEEDS
    }


def predicted(folder: Path) -> dict[tuple[str, int], Predictions]:
    place = Path("predictions") / NETWORK / "predictions.npz"
    return {key: load_predictions(at / place) for key, at in every_member(folder).items()}


def times(folder: Path) -> dict[str, int]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
def test_a_finished_ablation_does_nothing_again(whole: Path):
    before = times(whole)
    do_stage(opened(whole), "report")
    assert times(whole) == before
    assert not [name for name in before if ".partial" in name or name.endswith(".lucency-new")]


@pytest.mark.slow
def test_what_is_lost_is_made_again_and_nothing_else(whole: Path, tmp_path: Path):
    lost = ("variants/copied/seed-4/predictions", "report")
    shutil.copytree(whole / "out", tmp_path / "out")
    for name in lost:
        shutil.rmtree(tmp_path / "out" / name)
    before = times(tmp_path / "out")
    do_stage(open_run(opened(whole).protocol, out=tmp_path / "out", workers=1), "report")
    after = times(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name not in before} == {
        name for name in times(whole / "out") if name.startswith(lost)
    }


@pytest.mark.slow
def test_every_member_is_trained_and_judged_under_the_split_of_the_base(
    whole: Path, tmp_path: Path
):
    split = {one.split for one in predicted(whole).values()}
    assert split == {stages.split_name(opened(whole))}
    for folder in every_member(whole).values():
        about = json.loads((folder / "networks" / NETWORK / "classifier.json").read_text())
        assert {about["split"]} == split
        assert not (folder / "split").exists()
    elsewhere = protocol("split = { seed = 1 }").split
    other = open_run(
        opened(whole).protocol.model_copy(update={"split": elsewhere}), out=tmp_path / "other"
    )
    assert stages.split_name(other) not in split


@pytest.mark.slow
def test_all_see_the_same_test_films(whole: Path):
    tests = {key: one.of("test") for key, one in predicted(whole).items()}
    first = tests[BASE, 0]
    assert len(first) > 5
    for one in tests.values():
        assert one.image.tolist() == first.image.tolist()
        np.testing.assert_array_equal(one.label, first.label)
    said = {one.logit.tobytes() for one in tests.values()}
    assert len(said) == len(tests)  # and yet no two of them say the same


@pytest.mark.slow
def test_seeds_are_those_of_training_and_balancing(whole: Path):
    for (_, seed), folder in every_member(whole).items():
        made = read_protocol(folder / "protocol.toml")
        assert (made.training.seed, made.balance.seed) == (seed, seed)
    plans = [(member(whole, "copied", seed) / "plan" / "plan.csv").read_text() for seed in SEEDS]
    assert plans[0] != plans[1]


@pytest.mark.slow
def test_another_preparation_has_its_own_films_and_another_balance_has_not(whole: Path):
    own, common = (load_prepared(at / "prepared") for at in (
        whole / "out" / "variants" / "brighter", whole / "out",
    ))  # fmt: skip
    assert own.manifest.image.tolist() == common.manifest.image.tolist()
    assert (own.preparation.brightness, common.preparation.brightness) == (40, 0)
    assert np.mean(own.pixels) > np.mean(common.pixels) + 20
    folders = {str(at.relative_to(whole / "out")) for at in whole.rglob("prepared")}
    assert folders == {"prepared", "variants/brighter/prepared"}
    about = json.loads(
        (member(whole, "brighter", 0) / "networks" / NETWORK / "classifier.json").read_text()
    )
    assert about["preparation"]["brightness"] == 40


@pytest.mark.slow
def test_the_table_is_that_of_the_predictions_on_disk(whole: Path):
    table = pd.read_csv(whole / "out" / "evaluation" / "ablation.csv")
    auc = table.loc[table["metric"] == "auc"].set_index(["variant", "finding"])
    found = predicted(whole)
    for name in (BASE, *VARIANTS):
        areas = []
        for seed in SEEDS:
            test = found[name, seed].of("test")
            pairs = zip(test.label.T, test.logit.T, strict=True)
            areas.append([roc_auc_score(*pair) for pair in pairs])
        for place, finding in enumerate(FINDINGS):
            value = auc.loc[(name, finding), "value"]
            assert value == pytest.approx(np.mean(areas, axis=0)[place], abs=1e-9)
    assert (auc.loc[BASE, "difference"] == 0).all()
    assert set(table["seeds"]) == {len(SEEDS)}


@pytest.mark.slow
def test_costs_are_those_of_every_member(whole: Path):
    table = pd.read_csv(whole / "out" / "evaluation" / "costs.csv")
    keys = list(zip(table["variant"], table["seed"], strict=True))
    assert keys == list(every_member(whole))
    assert set(table["epochs"]) == {1}
    train = int((stages.parts(opened(whole)) == "train").sum())
    assert set(table["entries"]) == {train}  # this sampler shows as many entries as films


@pytest.mark.slow
def test_the_page_names_every_variant_and_what_it_changes(whole: Path):
    page = (whole / "out" / "report" / "report.html").read_text()
    for name in (BASE, *VARIANTS):
        assert f'<th scope="row">{name}</th>' in page
    for line in ("balance.method = &#34;weighted-sampler&#34;", "preparation.brightness = 40"):
        assert f"<code>{line}</code>" in page
    assert (whole / "out" / "evaluation" / "conclusion.txt").read_text().strip() in page


@pytest.mark.slow
def test_another_protocol_in_the_folder_is_refused_and_nothing_lost(whole: Path):
    before = times(whole)
    with pytest.raises(ValueError, match="holds a run of another protocol"):
        opened(whole, seeds=(0, 5))
    assert times(whole) == before


@pytest.mark.slow
def test_a_network_that_cannot_be_built_is_refused_before_the_first_is_trained(
    whole: Path, tmp_path: Path
):
    network = '{ name = "test_convnext", weights = "absent.pth", provenance = "none" }'
    variant = protocol(f'variant = [{{ name = "v", network = [{network}] }}]').variant
    job = open_run(
        opened(whole).protocol.model_copy(update={"variant": variant}), out=tmp_path / "out"
    )
    with pytest.raises(ValueError, match="no such weights file"):
        do_stage(job, "train")
    assert not list((tmp_path / "out").rglob("networks*"))


def test_members_are_the_base_and_every_variant_at_every_seed(tmp_path: Path):
    write_films(tmp_path / "films")
    run = opened(tmp_path)
    several = ablation.members(run)
    assert list(several) == [(name, seed) for name in (BASE, *VARIANTS) for seed in SEEDS]
    assert several["brighter", 0].shared == several["brighter", 4].shared != run.shared
    assert {several[key].shared for key in several if key[0] != "brighter"} == {run.shared}
    alone = open_run(
        protocol(without="seeds").model_copy(update={"data": run.protocol.data}),
        out=tmp_path / "alone",
    )
    assert {seed for _, seed in ablation.members(alone)} == {alone.protocol.training.seed}
