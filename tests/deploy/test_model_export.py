"""An exported folder: complete or absent, equal to torch, and enough without this program."""

import ast
import json
import re
import runpy
import shutil
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import lucency as lu
from cards import networks_of, require_true_of
from lucency.cli.app import app
from lucency.core.manifest import Preparation, load_prepared
from lucency.core.plan import only_tests
from lucency.core.predictions import load_predictions, rescale
from lucency.core.saved_files import read_json
from lucency.data.preprocess import prepare_film
from lucency.deploy import model_export
from lucency.deploy.model_export import export_model
from lucency.ensemble.fitted import load_predictor
from lucency.evaluation.conformal import sets_as_plain
from lucency.explain.class_activation import class_activation_maps, head_of
from lucency.explain.methods.registry import explain
from lucency.models import onnx_export, quantisation
from lucency.models.classifier import load_classifier
from lucency.models.metadata import read_metadata, read_model_json
from lucency.models.onnx_runtime import open_onnx, run
from lucency.models.quantisation import Rates
from lucency.pipeline.film_inference import predict_disk
from lucency.pipeline.film_predictors import cam_metadata
from lucency.pipeline.run import open_run_folder
from workplace import NETWORKS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "predict_exported.py"
SCHEMA = ROOT / "src" / "lucency" / "deploy" / "model.schema.json"
NAME = NETWORKS[1]
FITTED = {
    "predictor.json", "predictor.safetensors", "members", "model.json", "MODEL_CARD.md",
    "receipt.json",
}  # fmt: skip
FILES = {
    "model.onnx", "weights.safetensors", "model.json", "MODEL_CARD.md",
    "receipt.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(finished: Path) -> Path:
    return finished / "runs" / "demo"


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / NAME
    return export_model(folder, name=NAME, out=out)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names of the example, which is run as a file."""
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def written(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's ONNX file is the one that was written before: writing it takes seconds."""
    copied = lambda network, file, **_: shutil.copyfile(exported / "model.onnx", file)  # noqa: E731
    monkeypatch.setattr(onnx_export, "write_onnx", copied)


def test_the_folder_is_complete(exported: Path, folder: Path):
    assert {file.name for file in exported.iterdir()} == FILES
    assert not exported.with_name(f"{NAME}.partial").exists()
    own = folder / "networks" / NAME / "weights.safetensors"
    assert (exported / "weights.safetensors").read_bytes() == own.read_bytes()
    assert f"# Model card: {NAME}" in (exported / "MODEL_CARD.md").read_text()


def test_model_json_has_a_schema(exported: Path):
    schema, plain = (json.loads(f.read_text()) for f in (SCHEMA, exported / "model.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(plain, schema)
    for key in schema["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: plain[name] for name in plain if name != key}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plain, "version": 2}, schema)


def test_model_json_describes_the_file(exported: Path):
    plain = json.loads((exported / "model.json").read_text())
    graph = onnx.load(exported / "model.onnx").graph
    for end, several in (("inputs", graph.input), ("outputs", graph.output)):
        assert [*plain[end]] == [one.name for one in several]
        for one in several:
            shape = [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim]
            assert plain[end][one.name]["shape"] == shape
    assert plain["inputs"]["films"]["shape"][1:] == [plain["preparation"]["size"]] * 2
    assert plain["outputs"]["logit"]["shape"][1] == len(plain["findings"])


def test_the_onnx_file_alone_is_enough(exported: Path):
    plain = json.loads((exported / "model.json").read_text())
    held = {one.key: one.value for one in onnx.load(exported / "model.onnx").metadata_props}
    plain["fingerprints"].pop("model.onnx")  # which it cannot hold itself
    for key in ("findings", "preparation", "recalibration", "threshold", "fingerprints"):
        assert json.loads(held[key]) == plain[key]
    for key in ("notice", "provenance", "split", "name", "kind", "format"):
        assert held[key] == plain[key]


def test_model_json_is_read_as_the_network_s_own(exported: Path, folder: Path):
    found, own = read_model_json(exported), read_metadata(folder / "networks" / NAME)
    for key, value in vars(own).items():
        if key == "recalibration":
            assert vars(found.recalibration).keys() == vars(value).keys()
            np.testing.assert_array_equal(found.recalibration.slope, value.slope)
        elif key == "sets":
            assert sets_as_plain(found.sets) == sets_as_plain(value)
        else:
            np.testing.assert_array_equal(getattr(found, key), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, and this program reads up to 1: update"),
        ({"kind": "ensemble"}, "of kind ensemble, no network"),
        ({"format": "another"}, "found format 'another'"),
    ],
)
def test_another_model_json_is_refused(
    exported: Path, tmp_path: Path, change: dict[str, object], message: str
):
    with pytest.raises(ValueError, match=r"holds no model\.json: expected"):
        read_model_json(tmp_path)
    plain = read_json(exported / "model.json")
    (tmp_path / "model.json").write_text(json.dumps(plain | change))
    with pytest.raises(ValueError, match=message):
        read_model_json(tmp_path)


def test_films_of_both_parts_are_compared(exported: Path, folder: Path):
    seen = pd.read_csv(folder / "plan" / "plan.csv")["part"].value_counts()
    parity = json.loads((exported / "model.json").read_text())["parity"]
    assert (parity["validation"], parity["test"]) == (seen["val"], seen["test"])
    assert parity["films"] == seen["val"] + seen["test"]
    assert 0 <= parity["largest"] <= parity["bound"] == 1e-4


@pytest.mark.usefixtures("written")
def test_films_are_at_most_two_hundred_those_of_validation_first(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    seen = pd.read_csv(folder / "plan" / "plan.csv")["part"].value_counts()
    monkeypatch.setattr(model_export, "PARITY_FILMS", int(seen["val"]) + 1)
    made = export_model(folder, name=NAME, out=tmp_path / "out")
    parity = json.loads((made / "model.json").read_text())["parity"]
    assert (parity["validation"], parity["test"]) == (seen["val"], 1)
    compared = f"on {seen['val'] + 1} of {seen['val'] + seen['test']} films"
    assert compared in capsys.readouterr().err


def test_a_second_call_finds_the_work_done(exported: Path, folder: Path):
    before = (exported / "model.onnx").stat().st_mtime_ns
    assert export_model(folder, name=NAME, out=exported) == exported
    assert (exported / "model.onnx").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="was made from other inputs"):
        export_model(folder, name=NETWORKS[0], out=exported)


def change_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x01
    file.write_bytes(content)


@pytest.mark.parametrize("name", sorted(FILES - {"receipt.json"}))
def test_a_second_call_names_a_file_that_is_not_whole(
    exported: Path, folder: Path, tmp_path: Path, name: str
):
    place = Path(shutil.copytree(exported, tmp_path / "copy"))
    again = re.escape(f"delete {place}, then the same command exports it again")
    if name == "MODEL_CARD.md":  # which may be edited
        change_a_byte(place / name)
        assert export_model(folder, name=NAME, out=place) == place
    else:
        change_a_byte(place / name)
        found = (
            rf"^\S+{re.escape(name)} (is damaged|was changed|cannot be read).*: {again}|; {again}"
        )
        with pytest.raises(ValueError, match=found):
            export_model(folder, name=NAME, out=place)
    (place / name).unlink()
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is absent: {again}"):
        export_model(folder, name=NAME, out=place)


@pytest.mark.usefixtures("written")
def test_a_second_call_looks_at_members_and_what_was_fitted(combined: Path, tmp_path: Path):
    name = f"logistic on {NAME}"
    out = export_model(combined, name=name, out=tmp_path / "out")
    assert export_model(combined, name=name, out=out) == out
    for file in ("predictor.json", "predictor.safetensors", "members/1/model.onnx"):
        place = Path(shutil.copytree(out, tmp_path / file.replace("/", "-")))
        change_a_byte(place / file)
        with pytest.raises(ValueError, match=f"{file} is damaged: delete {place}, then"):
            export_model(combined, name=name, out=place)
        shutil.rmtree(place / "members" / "1")
        with pytest.raises(ValueError, match=f"{file} is damaged|1/model.json is absent"):
            export_model(combined, name=name, out=place)


def test_damaged_arrays_of_what_was_fitted_are_named(combined: Path, tmp_path: Path):
    own = combined / "ensemble" / f"logistic on {NAME}".replace(" ", "-")
    place = Path(shutil.copytree(own, tmp_path / "fitted"))
    content = bytearray((place / "predictor.safetensors").read_bytes())
    content[-1] ^= 0x01
    (place / "predictor.safetensors").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"predictor\.safetensors cannot be read .*delete the folder"
    ):
        load_predictor(place)


def test_a_folder_of_something_else_is_refused(folder: Path, tmp_path: Path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="was not made by this program"):
        export_model(folder, name=NAME, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_a_network_that_differs_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = onnx_export.write_onnx

    def doctored(network: Any, file: Path, **how: Any) -> None:
        other = deepcopy(network)
        other.body.get_classifier().bias.data += 0.01
        write(other, file, **how)

    monkeypatch.setattr(onnx_export, "write_onnx", doctored)
    with pytest.raises(ValueError, match=r"by up to 0.01 on \d+ films; expected 0.0001 at most"):
        export_model(folder, name=NAME, out=tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("written")
def test_a_stopped_export_leaves_nothing_and_can_be_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_export, "model_card", stop)
        with pytest.raises(KeyboardInterrupt):
            export_model(folder, name=NAME, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not {file.name for file in tmp_path.rglob("*")} & FILES
    assert export_model(folder, name=NAME, out=tmp_path / "out").is_dir()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{NAME} with views", "views"),
        (f"logistic on {NAME}", "learner"),
        (f"3 neighbours on {NAME}", "neighbours"),
    ],
)
def test_what_was_fitted_is_exported_with_a_card_of_its_own(
    combined: Path, tmp_path: Path, name: str, kind: str
):
    out = export_model(combined, name=name, out=tmp_path / "out")
    plain = json.loads((out / "model.json").read_text())
    jsonschema.validate(plain, json.loads(SCHEMA.read_text()))
    assert (plain["name"], plain["kind"], plain["members"]) == (name, kind, [NAME])
    assert {file.name for file in out.iterdir()} == FITTED
    text = (out / "MODEL_CARD.md").read_text()
    require_true_of(out)
    assert networks_of(text) == [NAME]
    assert re.search(r"On \d+ films each network's model.onnx, below members/, differs", text)
    private = "it is as private as the films are" in text
    assert private == (kind == "neighbours")
    member = json.loads((out / "members" / "1" / "model.json").read_text())
    assert plain["parity"] == member["parity"]
    assert plain["protocol"] == member["protocol"] | {"ensemble": plain["protocol"]["ensemble"]}


@pytest.mark.usefixtures("written")
def test_exported_neighbours_have_patients_of_other_numbers(combined: Path, tmp_path: Path):
    name = f"3 neighbours on {NAME}"
    own = load_predictor(combined / "ensemble" / name.replace(" ", "-")).rule.arrays
    out = export_model(combined, name=name, out=tmp_path / "out")
    shipped = load_predictor(out).rule.arrays
    assert own.keys() == shipped.keys()
    whose = np.unique(own["patient"])
    pairs = {*zip(own["patient"].tolist(), shipped["patient"].tolist(), strict=True)}
    assert {new for _, new in pairs} == {*range(len(whose))}
    assert len(pairs) == len(whose) < len(own["patient"])
    np.testing.assert_array_equal(shipped["direction"], own["direction"])
    known = load_prepared(combined / "prepared").manifest
    paths = known.facts["path"].tolist()  # those that vote too, whose patient does not
    found, expected = (lu.load(one[0], model=one[1]).predict(paths).probability
                       for one in ((out, ""), (combined, name)))  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_network_keeps_its_auc_on_validation_films(exported: Path, folder: Path):
    history = pd.read_csv(folder / "networks" / NAME / "history.csv").set_index("epoch")
    plain = json.loads((exported / "model.json").read_text())
    assert plain["validation_auc"] == pytest.approx(history.loc[plain["epoch"], "val_auc"])


def test_the_card_of_a_network_is_true_of_its_folder(exported: Path):
    require_true_of(exported)
    assert networks_of((exported / "MODEL_CARD.md").read_text()) == [NAME]


def test_features_that_differ_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    apart = onnx_export.Differences(logit=1e-6, feature=0.02)
    monkeypatch.setattr(onnx_export, "largest_differences", lambda *_, **__: apart)
    run, name = (
        open_run_folder(folder),
        r"in model\.onnx features differ .* by up to 0\.02 of their range",
    )
    with pytest.raises(ValueError, match=name):
        model_export.require_parity(run, load_classifier(folder / "networks" / NAME), None)


def test_what_cannot_be_exported_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="no predictor 'nobody'; expected one of"):
        export_model(folder, name="nobody", out=tmp_path / "out")
    with pytest.raises(ValueError, match="holds no run"):
        export_model(tmp_path, out=tmp_path / "out")
    unfinished = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(unfinished / "networks" / NAME)
    with pytest.raises(ValueError, match="is not finished"):
        export_model(unfinished, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_heat_maps_need_no_torch(exported: Path, folder: Path):
    classifier = load_classifier(folder / "networks" / NAME)
    films = load_prepared(folder / "prepared")
    rows = np.arange(4)
    few = replace(films, manifest=films.manifest.take(rows), pixels=np.asarray(films.pixels[rows]))
    plan = only_tests(few.manifest.label)
    request = {"method": "cam", "findings": classifier.findings}
    expected = explain(classifier, prepared=few, plan=plan, **request)
    network = open_onnx(exported / "model.onnx")
    head = head_of(network.metadata)
    assert head is not None
    found = class_activation_maps(network, head=head, prepared=few)
    np.testing.assert_allclose(found.grid, expected.grid, atol=1e-4)
    for mine, theirs in zip(found.centres, expected.centres, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_network_without_cam_is_exported_without_its_head(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("its head is not linear")

    classifier = load_classifier(folder / "networks" / NAME)
    assert head_of(cam_metadata(classifier)) is not None
    monkeypatch.setattr("lucency.explain.methods.cam.cam_head", refuse)
    assert cam_metadata(classifier) == {}
    assert "heat maps need torch: its head is not linear" in capsys.readouterr().err


@pytest.mark.usefixtures("written")
def test_eight_bits_state_their_cost_and_gain(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quantisation, "_rates", lambda *_: Rates(10.0, 12.5))
    words = ["export", str(folder), "--model", NAME, "--out", str(tmp_path / "out"), "--int8"]
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    held = json.loads(done.stdout)["int8"]
    plain = json.loads((tmp_path / "out" / "model.json").read_text())
    jsonschema.validate(plain, json.loads(SCHEMA.read_text()))
    assert plain["int8"] == held
    assert held["films_per_second"] == {"plain": 10.0, "quantised": 12.5}
    tests = load_predictions(folder / "predictions" / NAME / "predictions.npz").of("test")
    films = load_prepared(folder / "prepared")
    row = {name: at for at, name in enumerate(films.manifest.image)}
    pixels = np.stack([films.pixels[row[name]] for name in tests.image])
    logit = run(open_onnx(tmp_path / "out" / "model-int8.onnx"), pixels)[0]
    areas = [
        np.mean([roc_auc_score(y, z) for y, z in zip(tests.label.T, one.T, strict=True)])
        for one in (logit, tests.logit)
    ]
    assert held["macro_auc"]["difference"] == pytest.approx(areas[0] - areas[1], abs=1e-9)
    assert "12.5 films a second" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


@pytest.mark.usefixtures("written")
def test_eight_bits_that_gain_nothing_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quantisation, "_rates", lambda *_: Rates(10.0, 9.0))
    with pytest.raises(ValueError, match=r"slower here: .*; export it without --int8"):
        export_model(folder, name=NAME, out=tmp_path / "out", int8=True)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("written")
def test_the_command_exports(folder: Path, tmp_path: Path):
    words = ["export", str(folder), "--model", NAME, "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["kind"]) == (NAME, "network")
    assert answer["largest difference of a logit"] <= 1e-4
    assert Path(answer["model card"]).is_file()


def test_the_example_predicts_as_this_program_does(
    exported: Path, folder: Path, example: dict[str, Any]
):
    files = sorted((folder / "phantom" / "images").iterdir())[:5]
    table = predict_disk(folder, files, name=NAME)[1]
    findings, probability, called = example["predict"](exported, files)
    np.testing.assert_allclose(probability, table[findings].to_numpy(), rtol=0, atol=1e-4)
    names = ["|".join(np.array(findings)[row]) for row in called]
    assert names == table["called"].tolist()


def test_the_example_imports_no_lucency():
    nodes = [*ast.walk(ast.parse(EXAMPLE.read_text()))]
    plain = {name.name for one in nodes if isinstance(one, ast.Import) for name in one.names}
    others = {str(one.module) for one in nodes if isinstance(one, ast.ImportFrom)}
    found = {name.partition(".")[0] for name in plain | others} - sys.stdlib_module_names
    assert found == {"cv2", "numpy", "onnxruntime"}


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"order": "resize-first", "denoise": ("median", "bilateral", "gaussian")},
        {"order": "no-clahe", "brightness": -20, "denoise": ("gaussian",)},
        {"clahe_clip": 2.0, "clahe_tiles": 8, "brightness": 15, "size": 128},
    ],
)
def test_the_example_prepares_films_bit_for_bit(
    example: dict[str, Any], tmp_path: Path, choices: dict[str, Any]
):
    film = np.random.default_rng(1).integers(0, 256, (90, 110), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "film.png"), film)
    preparation = Preparation(**{"size": 64, **choices})
    shown = example["prepare"](tmp_path / "film.png", json.loads(preparation.model_dump_json()))
    np.testing.assert_array_equal(shown, prepare_film(film, preparation=preparation))


def test_the_example_recalibrates_by_lines_and_curves(example: dict[str, Any]):
    logit = np.random.default_rng(2).normal(0, 3, (40, 2)).astype(np.float32)
    knot = np.array([[1, -2.0, -1.0], [1, 0.0, 0.5], [1, 1.0, 0.5], [1, 2.0, 3.0]])
    slope, offset = np.array([0.5, 2.0]), np.array([-1.0, 0.25])
    lines = {"slope": slope.tolist(), "offset": offset.tolist(), "knot": knot.tolist()}
    expected = 1 / (1 + np.exp(-rescale(logit, slope=slope, offset=offset, knot=knot)))
    np.testing.assert_allclose(example["probabilities"](logit, lines), expected, atol=1e-12)


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("name", [NAME, f"logistic on {NAME}"])
def test_a_folder_that_lacks_its_network_is_refused_and_not_made_anew(
    combined: Path, tmp_path: Path, name: str
):
    out = export_model(combined, name=name, out=tmp_path / "out")
    (lost,) = out.rglob("model.onnx")
    lost.unlink()
    film = next((combined / "phantom" / "images").iterdir())
    with pytest.raises(ValueError, match=r"model\.onnx.*`?lucency export`?") as refused:
        lu.load(out, engine="onnx").predict(film)
    assert str(lost) in str(refused.value)
    assert not lost.exists()


def test_a_damaged_file_is_refused(exported: Path, tmp_path: Path):
    place = Path(shutil.copytree(exported, tmp_path / "copy"))
    whole = bytearray((place / "model.onnx").read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 400] = bytes(one ^ 0x55 for one in whole[middle : middle + 400])
    (place / "model.onnx").write_bytes(whole)
    film = np.zeros((64, 64), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"model\.onnx .*export"):
        lu.load(place).predict(film)
    (place / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model\.json cannot be read .*export the model again"):
        lu.load(place)
    (place / "model.json").unlink()
    with pytest.raises(ValueError, match=r"holds no model\.json, which lucency export wrote"):
        lu.load(place)
    with pytest.raises(ValueError, match="no such folder"):
        lu.load(tmp_path / "nowhere")
