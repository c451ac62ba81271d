"""External tests of a run: made once, kept, added later, refused early, and no report lost."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.cli import app as cli
from lucency.config.protocol import parse_external, read_protocol
from lucency.core.manifest import UNKNOWN_PATIENT, Manifest, load_prepared, read_table
from lucency.core.plan import only_tests
from lucency.core.predictions import load_predictions
from lucency.deploy.model_card import model_card
from lucency.evaluation.external_validation import load_validation
from lucency.evaluation.set_coverage import OWN
from lucency.models.classifier import load_classifier
from lucency.models.inference import predict
from lucency.phantom.dataset import write_phantom
from lucency.pipeline import added_tests, stages
from lucency.pipeline.external_stage import refuse_known_films
from lucency.pipeline.library import RunResult
from lucency.pipeline.run import Run, external_run, open_run, open_run_folder
from workplace import NETWORKS, SIZE, stated_labels

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("figures_once")]
SECOND = f'{{name="second",source="phantom",hospital=2,films=40,size={SIZE},seed=4}}'
PLACE = Path("evaluation") / "conclusion.txt"


def lucency(*words: str | Path) -> int:
    """Run a command here, as `python -m lucency` does, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lucency", *map(str, words)])
        return cli.call()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv set: films of other phantoms, whose table states two of the run's three findings."""
    place = tmp_path_factory.mktemp("table")
    knobs = {"films": 40, "size": SIZE, "seed": 8, "label_noise": 0.0, "shortcut": 0.0}
    write_phantom(place, **knobs, workers=1, progress=lambda *_: None)
    labels = stated_labels(place / "Data_Entry_2017_v2020.csv")
    labels[["image", "patient", "Atelectasis", "Effusion"]].to_csv(place / "l.csv", index=False)
    return place


@pytest.fixture(scope="module")
def tested(
    finished: Path, table: Path, tmp_path_factory: pytest.TempPathFactory, figures_once: None
) -> Path:
    """The finished run, continued with a protocol that names an external test; one more added."""
    out = tmp_path_factory.mktemp("tested") / "run"
    shutil.copytree(finished / "runs" / "demo", out)
    before = (out / "networks" / NETWORKS[0] / "receipt.json").stat().st_mtime_ns
    words = ("run", out / "protocol.toml", "--out", out, "--workers", "1")
    assert lucency(*words, "--set", f"external=[{SECOND}]") == 0
    assert (out / "networks" / NETWORKS[0] / "receipt.json").stat().st_mtime_ns == before
    words = ("--source", "csv", "--root", table, "--labels", table / "l.csv", "--name", "table")
    assert lucency("evaluate", out, *words, "--json", "--out", out.parent / "tables") == 0
    return out


def test_a_finished_run_goes_on_with_what_is_new(tested: Path):
    text = (tested / "report" / "report.html").read_text()
    assert '<section id="external">' in text
    conclusion = (tested / "external" / "second" / PLACE).read_text().strip()
    assert conclusion in text
    assert sorted(path.name for path in (tested / "external" / "second").iterdir()) == [
        "evaluation", "manifest", "phantom", "predictions", "prepared",
    ]  # fmt: skip


def test_an_added_test_joins_the_protocol_and_the_next_report(
    tested: Path, table: Path, capsys: pytest.CaptureFixture[str]
):
    names = [one.name for one in read_protocol(tested / "protocol.toml").external]
    assert names == ["second", "table"]
    assert lucency("report", tested) == 0
    text = (tested / "report" / "report.html").read_text()
    assert 'id="external-second"' in text
    assert 'id="external-table"' in text
    covered = read_table(tested / "coverage" / "coverage.csv", text=("films", "group"))
    assert set(covered["films"]) == {OWN, "second", "table"}
    assert '<th scope="row">table</th>' in text.partition('<section id="abstain">')[2]
    about = ("--source", "csv", "--root", table, "--labels", table / "l.csv", "--name", "table")
    capsys.readouterr()
    assert lucency("evaluate", tested, *about, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    found = load_validation(tested / "external" / "table" / "evaluation")
    assert said["conclusion"] == found.conclusion
    assert len(said["findings"]) == 3
    assert load_validation(tested.parent / "tables").conclusion == found.conclusion
    assert lucency("evaluate", tested, *about) == 0
    assert found.about["distance"] in capsys.readouterr().out


def test_a_finding_without_a_column_is_not_stated(tested: Path):
    found = load_validation(tested / "external" / "table" / "evaluation").findings
    rows = found.set_index("finding")
    assert "external films: not stated" in str(rows.loc["Infiltration", "reason"])
    assert rows.loc["Infiltration", "external_films"] == 0
    label = load_predictions(
        tested / "external" / "table" / "predictions" / NETWORKS[0] / "predictions.npz"
    ).label
    assert np.isnan(label).all(axis=0).tolist() == [False, False, True]


def test_films_are_prepared_and_predicted_as_the_run_s_own(tested: Path):
    home = tested / "external" / "second"
    films = load_prepared(home / "prepared")
    assert films.preparation == load_prepared(tested / "prepared").preparation
    kept = load_predictions(home / "predictions" / NETWORKS[0] / "predictions.npz")
    network = load_classifier(tested / "networks" / NETWORKS[0])
    anew = predict(network, prepared=films, plan=only_tests(films.manifest.label))
    np.testing.assert_allclose(anew.probability, kept.probability, atol=1e-5)
    assert (kept.part == "test").all()


def test_the_share_set_apart_is_of_other_patients(tested: Path):
    about = load_validation(tested / "external" / "second" / "evaluation").about
    films = load_prepared(tested / "external" / "second" / "prepared").manifest
    assert about["films"] + about["apart_films"] == len(films)
    assert about["patients"] + about["apart_patients"] == len(np.unique(films.patient))
    assert 0 < about["apart_films"] < about["films"]


def test_the_library_and_the_model_card_hold_the_tests(tested: Path):
    run = open_run_folder(tested)
    found = RunResult(run=run).external
    assert list(found) == ["second", "table"]
    again = RunResult(run=run).validate("phantom", name="second", hospital=2, films=40, size=SIZE,
                                        seed=4)  # fmt: skip
    assert again.conclusion == found["second"].conclusion
    card = model_card(run, NETWORKS[0])
    section = card.partition("## External tests")[2].partition("\n## ")[0]
    assert "second" in section
    assert "not reported" not in section


def test_films_that_are_gone_stay_as_they_were_prepared(
    tested: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, away = tmp_path / "run", table.with_name("away")
    shutil.copytree(tested, out)
    table.rename(away)
    try:
        assert lucency("report", out) == 0
    finally:
        away.rename(table)
    assert "films stay as they were prepared" in capsys.readouterr().err
    assert 'id="external-table"' in (out / "report" / "report.html").read_text()


def test_a_set_that_fails_is_named_and_the_report_kept(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    shutil.copytree(tested, out)
    broken = out / "external" / "second" / "predictions" / NETWORKS[0] / "predictions.npz"
    broken.write_bytes(b"")
    assert lucency("report", out) == 3
    assert "external-second" in capsys.readouterr().out
    text = (out / "report" / "report.html").read_text()
    assert "External validation: second" in text
    assert "second: not available" in text
    assert 'id="external-table"' in text


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line in which a command refuses."""
    assert lucency(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ('{name="x",source="csv",root="/nowhere"}', "external.0.root is '/nowhere'"),
        (
            '{name="x",source="phantom",films=200}',
            "external.0 (x): both are phantoms of hospital 1",
        ),
        ('{name="x",source="rsna",root="/nowhere"}', "external.0.root"),
    ],
)
def test_a_source_that_cannot_test_is_refused_before_training(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: str, expected: str
):
    out = tmp_path / "run"
    words = ["run", str(finished / "protocols" / "demo.toml"), "--out", str(out)]
    assert expected in refused([*words, "--set", f"external=[{changes}]"], capsys)
    assert not (out / "networks").exists()


def test_unknown_patients_are_refused(tested: Path, monkeypatch: pytest.MonkeyPatch):
    films = stages.labelled_films

    def strange(run: Run) -> Manifest:
        found = films(run)
        return replace(found, patient=np.full(len(found), UNKNOWN_PATIENT))

    monkeypatch.setattr(stages, "labelled_films", strange)
    choice = parse_external({"name": "new", "source": "phantom", "films": 20, "size": SIZE,
                             "seed": 11})  # fmt: skip
    with pytest.raises(ValueError, match=r"external.2 \(new\): the patients of 20 of 20 films"):
        added_tests.add_external_test(tested, choice)
    assert "new" not in (tested / "protocol.toml").read_text()


def test_films_of_the_run_under_other_names_are_refused(tested: Path, tmp_path: Path):
    films = load_prepared(tested / "prepared")
    other = load_prepared(tested / "external" / "second" / "prepared")
    refuse_known_films(films, other, name="second", out=tmp_path)
    assert not list(tmp_path.iterdir())
    pixels = np.array(other.pixels)
    pixels[3], pixels[5] = films.pixels[7], 0
    image = films.manifest.image[7]
    with pytest.raises(ValueError, match=f"1 of 40 films shows .* = {image}"):
        refuse_known_films(films, replace(other, pixels=pixels), name="second", out=tmp_path)
    listed = pd.read_csv(tmp_path / "twice-second.csv")
    assert listed.to_numpy().tolist() == [[other.manifest.image[3], image]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--source", "phantom", "--val", "a.csv"], "expected one run's folder"),
        (["--root", "x"], "expected it beside them"),
        (["--source", "phantom", "--set", "hopsital=2"], "nearest is 'hospital'"),
        (["--source", "phantom", "--name", "second"], "expected another --name"),
    ],
)
def test_impossible_calls_are_refused(
    tested: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
):
    before = (tested / "protocol.toml").read_text()
    assert expected in refused(["evaluate", str(tested), *words], capsys)
    assert (tested / "protocol.toml").read_text() == before


def test_another_place_of_an_external_test_is_kept(tested: Path, table: Path, tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(tested, out)
    protocol = read_protocol(out / "protocol.toml", changes=["external.1.root=/nowhere"])
    kept = open_run(protocol, out=out).protocol.external[1]
    assert kept.root == str(table)
    protocol = read_protocol(out / "protocol.toml", changes=[f"external.1.root={table.name}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(table.parent)
        assert open_run(protocol, out=out).protocol.external[1].root == str(table)


def test_other_keys_of_a_test_are_refused_and_a_test_taken_out_leaves_the_report(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    shutil.copytree(tested, out)
    before = (out / "protocol.toml").read_text()
    words = ["run", str(out / "protocol.toml"), "--out", str(out), "--workers", "1", "--set"]
    line = refused([*words, "external.0.films=60"], capsys)
    assert "external.0 (second): films: was 40, now 60: " in line
    assert f"the films of {out / 'external' / 'second'} are of other choices" in line
    assert (out / "protocol.toml").read_text() == before
    (out / "external" / "table").rename(tmp_path / "table")
    assert lucency(*words, f"external=[{SECOND}]") == 0
    text = (out / "report" / "report.html").read_text()
    assert 'id="external-second"' in text
    assert 'id="external-table"' not in text
    assert not (out / "external" / "table").exists()


def test_variants_have_no_external_tests(finished: Path):
    file = finished / "protocols" / "ablation-balance.toml"
    with pytest.raises(ValueError, match="external and variant"):
        read_protocol(file, changes=[f"external=[{SECOND}]"])


def test_the_run_of_a_test_has_the_run_s_preparation(tested: Path):
    run = open_run_folder(tested)
    test = external_run(run, "table")
    assert test.protocol.preparation == run.protocol.preparation
    assert test.protocol.findings == ("Atelectasis", "Effusion")
    assert pd.read_csv(test.source / "manifest" / "manifest.csv")["Effusion"].notna().all()


def test_a_test_is_renamed_with_its_folder_and_its_entry(tested: Path, tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(tested, out)
    file, networks = out / "protocol.toml", Path("predictions") / NETWORKS[0] / "receipt.json"
    before = (out / "external" / "table" / networks).stat().st_mtime_ns
    file.write_text(file.read_text().replace('name = "table"', 'name = "other"'))
    (out / "external" / "table").rename(out / "external" / "other")
    assert lucency("report", out) == 0
    assert (out / "external" / "other" / networks).stat().st_mtime_ns == before
    assert 'id="external-other"' in (out / "report" / "report.html").read_text()
    assert load_validation(out / "external" / "other" / "evaluation").about["name"] == "other"
