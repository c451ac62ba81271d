"""The study of preparations on toys: done once, found again, resumed, shown, and refused."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from lucency.cli.app import app
from lucency.config.protocol import protocol_text, read_protocol
from lucency.core.manifest import Manifest, load_manifest
from lucency.core.predictions import load_predictions
from lucency.core.stage import produce
from lucency.data.image_measures import MEASURES, measure_film
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film
from lucency.ensemble.feature_classifiers import LEARNERS, cross_validated, folds_by_patient
from lucency.ensemble.lungs import lung_mask
from lucency.evaluation import preparation_grid
from lucency.evaluation.metrics import macro_auc
from lucency.evaluation.preparation_grid import OFF, OWN, STUDY, load_study, make_grid
from lucency.models.features import embed, frozen_network
from lucency.models.networks import build
from lucency.pipeline import preparation_study
from lucency.report.preparation_page import draw_study, preparation_values
from lucency.report.run_page import Experiment
from toys import FINDINGS, toy_films

NETWORK, SIDE, FILMS = "test_convnext", 64, 48
CELLS = [OFF, "2x4", OWN]
PROTOCOL = """
name = "toys"
findings = ["Left", "Right"]

[data]
source = "csv"
root = "films"
labels = "toys.csv"

[preparation]
size = 32

[[network]]
name = "test_resnet"

[[network]]
name = "test_convnext"
weights = "net.safetensors"
provenance = "nothing: drawn at random for a test"

[evaluation]
resamples = 40
seed = 3

[[variant]]
name = "no-clahe"
preparation = { order = "no-clahe" }
"""
NARROW = (
    "--clips", "2", "--tiles", "4", "--orders", "clahe-first", "--films", "10", "--repeats", "2",
    "--workers", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with toys as PNG films, a protocol, weights that are not random, and a study.

    Learners have one choice instead of four, to be quick.
    """
    place = tmp_path_factory.mktemp("study")
    films = toy_films(FILMS, size=SIDE)
    (place / "films").mkdir()
    for name, pixels in zip(films.manifest.image, films.pixels, strict=True):
        cv2.imwrite(str(place / "films" / name), pixels)
    table = pd.DataFrame({"image": films.manifest.image, "patient": films.manifest.patient})
    label = pd.DataFrame(films.manifest.label.astype(int), columns=list(FINDINGS))
    table.join(label).to_csv(place / "films" / "toys.csv", index=False)
    torch.manual_seed(0)
    state = build(NETWORK, findings=1).body.state_dict()
    save_file({name: one.contiguous() for name, one in state.items()}, place / "films" / WEIGHTS)
    (place / "toys.toml").write_text(PROTOCOL)
    with pytest.MonkeyPatch.context() as patch:
        quick = LEARNERS["logistic"]._replace(grid=LEARNERS["logistic"].grid[-1:])
        patch.setitem(LEARNERS, "logistic", quick)
        patch.chdir(place)
        study("--out", "out")
        yield place


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def study(*words: str, protocol: str = "toys.toml") -> str:
    given = ["study", "preparation", protocol, *NARROW, *words]
    done = CliRunner().invoke(app, given)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str, protocol: str = "toys.toml") -> str:
    with pytest.raises(ValueError, match=r"\w") as told:
        study(*words, protocol=protocol)
    return str(told.value)


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def no_work(*_: object, **__: object) -> None:
    raise AssertionError("work that was done is done again")


# --- what it makes


def test_every_cell_has_what_it_says_and_keeps_no_prepared_films(at_home: Path):
    assert {one.name for one in Path("out/cells").iterdir()} == set(CELLS)
    for cell in CELLS:
        names = {one.name for one in Path("out/cells", cell).iterdir()}
        assert names == {"feature.npy", "rows.npy", "measures.csv", "receipt.json", "written.json"}
    tables = {one.name for one in Path("out/evaluation").iterdir()}
    assert tables >= {"cells.csv", "measures.csv", "summary.csv", "about.json", "conclusion.txt"}
    page = Path("out/page/report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", ""), "the page needs no other file"
    conclusion = Path("out/evaluation/conclusion.txt").read_text().strip()
    assert "Films: 48 of 24 patients." in conclusion
    assert conclusion.split(".")[0] in page.replace("&#39;", "'")
    assert Path("out/page/figure.svg").read_text().startswith('<svg style="background:white')


def test_auc_is_that_of_logistic_regression_on_the_frozen_network_s_features(at_home: Path):
    films = load_manifest(Path("out/manifest"))
    grid = make_grid(read_protocol(Path("toys.toml")).preparation, clips=(2.0,), tiles=(4,),
                     orders=("clahe-first",))  # fmt: skip
    cells = pd.read_csv("out/evaluation/cells.csv").set_index("cell")
    network = read_protocol(Path("toys.toml")).network[1]
    greys = [read_grey(Path(one)) for one in sorted(Path("films").glob("*.png"))]
    for cell in (OFF, "2x4"):
        pixels = [prepare_film(one, preparation=grid[cell]) for one in greys]
        shown = toy_films(FILMS, size=32)
        shown = type(shown)(
            manifest=films, preparation=grid[cell], pixels=np.stack(pixels), rejected=shown.rejected
        )
        feature = embed(
            shown, rows=np.arange(FILMS), network=frozen_network(network, root=Path("films"))
        )
        np.testing.assert_array_equal(feature, np.load(f"out/cells/{cell}/feature.npy"))
        auc = []
        for seed in (3, 4):
            said, _ = cross_validated(
                feature, manifest=films, source=NETWORK, learner="logistic", seed=seed, folds=5
            )
            auc.append(macro_auc(said.label, said.calibrated))
        assert cells.loc[cell, "auc"] == pytest.approx(np.mean(auc), abs=1e-3)


def test_measures_are_those_of_the_films_beside_themselves_without_clahe(at_home: Path):
    table = pd.read_csv("out/cells/2x4/measures.csv").set_index("image")
    assert len(table) == 10
    base = read_protocol(Path("toys.toml")).preparation
    grid = make_grid(base, clips=(2.0,), tiles=(4,), orders=("clahe-first",))
    for name in table.index[:3]:
        grey = read_grey(Path("films", str(name)))
        film, plain, clear = (
            prepare_film(grey, preparation=grid[cell]) for cell in ("2x4", OFF, OWN)
        )
        found = measure_film(film, original=plain, lungs=lung_mask(clear).mask)
        assert table.loc[name, list(MEASURES)].tolist() == pytest.approx(
            list(found.values()), nan_ok=True
        )
    rows = pd.read_csv("out/evaluation/measures.csv").set_index(["cell", "measure"])
    assert rows.loc[("2x4", "eme"), "value"] == pytest.approx(table["eme"].mean())
    assert rows.loc[(OFF, "ssim"), "value"] == 1


def test_no_patient_is_on_both_sides_of_a_fold(at_home: Path):
    films = load_manifest(Path("out/manifest"))
    for k in range(2):
        fold = folds_by_patient(films.patient, folds=5, seed=3 + k)
        for patient in np.unique(films.patient):
            assert len(np.unique(fold[films.patient == patient])) == 1
        said = load_predictions(Path(f"out/predictions/2x4/{k}.npz"))
        assert said.split == f"5 folds by patient, seed {3 + k}"
        assert said.patient.tolist() == films.patient.tolist()


def test_the_answer_is_json_if_asked(at_home: Path):
    told = json.loads(study("--out", "out", "--json"))
    assert set(told["highest macro AUC"]) == set(CELLS)
    assert Path(told["report"]).is_file()


# --- done again, killed, changed


def test_done_again_it_does_nothing(at_home: Path, monkeypatch: pytest.MonkeyPatch):
    before = files_of(Path("out"))
    for name in ("prepare", "_learn", "write_preparation_page"):
        monkeypatch.setattr(preparation_study, name, no_work)
    monkeypatch.setattr(preparation_grid, "compare_cells", no_work)
    study("--out", "out")
    assert files_of(Path("out")) == before


def test_killed_it_goes_on_and_ends_with_the_same_tables(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls, real = [], preparation_study.prepare

    def killed(*films: Manifest, **given: object) -> object:
        calls.append(given["preparation"])
        if len(calls) == 4:  # originals twice, the first cell, and then
            raise KeyboardInterrupt
        return real(*films, **given)

    monkeypatch.setattr(preparation_study, "prepare", killed)
    out = tmp_path / "again"
    with pytest.raises((KeyboardInterrupt, SystemExit, AssertionError)):
        study("--out", str(out))
    assert [one.name for one in (out / "cells").iterdir() if one.suffix != ".partial"] == [OFF]
    done = files_of(out / "cells" / OFF)
    monkeypatch.setattr(preparation_study, "prepare", real)
    study("--out", str(out))
    assert files_of(out / "cells" / OFF) == done
    for file in ("cells.csv", "measures.csv", "conclusion.txt"):
        assert (out / "evaluation" / file).read_text() == Path("out/evaluation", file).read_text()


def test_a_wider_grid_keeps_the_cells_that_are_there(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree("out", tmp_path / "out")
    made, real = [], preparation_study.prepare

    def counted(*films: Manifest, **given: object) -> object:
        made.append(given["preparation"])
        return real(*films, **given)

    monkeypatch.setattr(preparation_study, "prepare", counted)
    study("--out", str(tmp_path / "out"), "--tiles", "4,8")
    assert [(one.clahe_clip, one.clahe_tiles) for one in made] == [(2, 8)]
    assert len(pd.read_csv(tmp_path / "out/evaluation/cells.csv")) == 4


# --- shown


def test_a_run_s_report_shows_the_study_that_stands_in_it(at_home: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree("out", run / STUDY, ignore=shutil.ignore_patterns("manifest", "page"))
    (run / "protocol.toml").write_text(protocol_text(read_protocol(Path("toys.toml"))))
    study("--out", str(run / STUDY))
    assert (run / "manifest" / "receipt.json").is_file(), "it takes the run's films"
    assert not (run / STUDY / "manifest").exists()
    shown = preparation_values(load_study(run / STUDY / "evaluation"))
    assert "Films: 48 of 24 patients." in shown["conclusion"]
    assert shown["figure"].startswith("<svg")
    assert (
        preparation_values(Experiment.__dataclass_fields__["preparations"].default_factory()) == {}
    )


@pytest.mark.slow  # it trains a network
def test_a_finished_report_is_written_anew_when_a_study_comes_into_the_run(
    at_home: Path, tmp_path: Path
):
    text = PROTOCOL.partition("[[variant]]")[0].replace('[[network]]\nname = "test_resnet"', "")
    text = text.replace('root = "films"', f'root = "{(at_home / "films").as_posix()}"')
    text += "\n[training]\nepochs = 1\n[explanation]\nmethods = []\n"
    (tmp_path / "toys.toml").write_text(text)
    words = ["run", str(tmp_path / "toys.toml"), "--out", str(tmp_path / "run"), "--workers", "1"]

    def page() -> str:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return (tmp_path / "run" / "report" / "report.html").read_text()

    assert "Preprocessing study" not in page()
    study("--out", str(tmp_path / "run" / STUDY), protocol=str(tmp_path / "run" / "protocol.toml"))
    assert "Preprocessing study" in page()


def test_the_figure_has_a_number_for_every_cell_and_the_same_bytes(at_home: Path):
    found = load_study(Path("out/evaluation"))
    drawing = draw_study(found)
    assert drawing == draw_study(found)
    for title in ("CLAHE before resizing, minus off", "CLAHE before resizing, minus 3x10", "SSIM"):
        assert title in drawing
    own = found.cells.set_index("cell").loc[OWN]
    assert f"{own['off_difference']:.3f}".lstrip("-") in drawing


def test_a_finished_ablation_stands_in_the_page(at_home: Path, tmp_path: Path):
    ablation, out = an_ablation(tmp_path), tmp_path / "out"
    shutil.copytree("out", out)
    study("--out", str(out), "--ablation", str(ablation))
    page = (out / "page" / "report.html").read_text()
    assert "Fine-tuned networks: none." not in page
    assert "net: nothing was told apart." in page
    assert 'href="../../ablation/report/report.html"' in page
    assert ">no CLAHE<" in page
    assert "0.612" in page
    study("--out", str(out))
    assert "Fine-tuned networks: none." in (out / "page" / "report.html").read_text()


def an_ablation(folder: Path, change: Callable[[str], str] = lambda text: text) -> Path:
    """Write a finished ablation as `lucency run` would leave it, of one network."""
    place = folder / "ablation"
    place.mkdir()
    protocol = read_protocol(Path("toys.toml"))
    (place / "protocol.toml").write_text(change(protocol_text(protocol)))
    numbers = dict.fromkeys(("value", "low", "high", "difference"), 0.612)
    numbers |= {"difference_low": -0.1, "difference_high": 0.1, "p_holm": 1.0, "seeds": 2}
    rows = [
        {"network": "net", "variant": name, "finding": "macro", "metric": "auc", **numbers}
        for name in ("base", "no-clahe")
    ]

    def write(partial: Path) -> None:
        pd.DataFrame(rows).to_csv(partial / "ablation.csv", index=False)
        (partial / "conclusion.txt").write_text("net: nothing was told apart.\n")

    produce(place / "evaluation", inputs={"a": 1}, write=write)
    return place


# --- refused


def test_random_weights_are_refused_before_any_work(at_home: Path, tmp_path: Path):
    told = refused("--out", str(tmp_path / "new"), "--set", "network.1.weights=random")
    assert told.startswith("all networks begin with random weights (test_resnet, test_convnext)")
    assert "\n" not in told
    assert not (tmp_path / "new").exists()


def test_a_head_that_nothing_has_trained_is_refused(at_home: Path, tmp_path: Path):
    head = 'network.1.head={ pooling = "average", dense = [8] }'
    told = refused("--out", str(tmp_path / "new"), "--set", head)
    assert told.startswith("test_convnext has a head with layers that nothing has trained")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clips", "2,x"), "--clips 2,x: expected numbers such as 2,3"),
        (("--tiles", "2.5"), "--tiles 2.5: expected whole numbers such as 8,10"),
        (("--clips", "0"), "preparation.clahe_clip is 0.0"),
        (("--orders", "clahe"), "preparation.order is 'clahe'"),
        (("--ablation", "films"), "--ablation films holds no run"),
        (("--films", "9"), "was made from other inputs (films: was 10, now 9)"),
        (("--set", "preparation.size=48"), "holds a run of another protocol"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_lost(
    at_home: Path, words: tuple[str, ...], message: str
):
    before = files_of(Path("out"))
    assert message in refused("--out", "out", *words)
    assert files_of(Path("out")) == before


BALANCED = 'balance = { method = "ml-ros" }'
ABLATIONS = {
    "balanced": (
        lambda text: text.replace('name = "no-clahe"', f'name = "no-clahe"\n{BALANCED}'),
        "variants that change `preparation` alone",
    ),
    "of other films": (
        lambda text: text.replace('patient_column = "patient"', 'patient_column = "person"'),
        "is of other films: data.patient_column: was patient, now person",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ABLATIONS)
def test_an_ablation_of_something_else_is_refused(at_home: Path, tmp_path: Path, what: str):
    change, message = ABLATIONS[what]
    ablation = an_ablation(tmp_path, change)
    assert message in refused("--out", "out", "--ablation", str(ablation))


def test_an_ablation_of_another_label_table_is_refused(at_home: Path, tmp_path: Path):
    ablation = an_ablation(tmp_path)
    (ablation / "manifest").mkdir()
    (ablation / "manifest" / "receipt.json").write_text('{"labels": "another"}')
    refusal = refused("--out", "out", "--ablation", str(ablation))
    assert re.search("is of other films: .*labels: was [0-9a-f]{16}, now another", refusal)


def test_an_ablation_that_is_not_finished_is_refused(at_home: Path, tmp_path: Path):
    ablation = an_ablation(tmp_path)
    shutil.rmtree(ablation / "evaluation")
    assert "is not finished: go on" in refused("--out", "out", "--ablation", str(ablation))


def test_a_study_in_a_run_of_other_films_is_refused(at_home: Path, tmp_path: Path):
    text = protocol_text(read_protocol(Path("toys.toml"))).replace("size = 32", "size = 48")
    (tmp_path / "protocol.toml").write_text(text)
    told = refused("--out", str(tmp_path / STUDY))
    assert "lies in a run that differs (preparation.size: was 48, now 32)" in told
    assert not (tmp_path / STUDY).exists()


WEIGHTS = "net.safetensors"
