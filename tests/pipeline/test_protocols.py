"""Every protocol of `protocols/` in miniature, from labels to page, whatever its outputs."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lucency.cli.app import app
from lucency.cli.run_commands import INCOMPLETE
from lucency.config.protocol import Protocol, parse_protocol, protocol_text
from lucency.core.manifest import FINDINGS, NO_FINDING
from lucency.core.stage import Failures
from lucency.phantom.dataset import write_phantom
from lucency.pipeline import ablation_study as ablation
from lucency.pipeline import stages, sweep_study
from lucency.pipeline.run import open_run
from lucency.pipeline.stages import (
    films_apart,
    patients_seen,
    plan,
    predictions,
    predictions_apart,
    prepared,
)

pytestmark = pytest.mark.usefixtures("figures_once")
ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = sorted((ROOT / "protocols").glob("*.toml"))
FILMS, SIZE, SIDE, FEW, VIEWS = 90, 64, 32, 20, 2
RUN_MOST = ("quick", "demo", "sample", "chestxray14", "reference", "ablation-balance")
OUTPUTS = {
    1: ("Effusion",),
    3: ("Effusion", NO_FINDING, "Infiltration"),
    14: FINDINGS,
    15: tuple(sorted((*FINDINGS, NO_FINDING))),
}
MOST = max(OUTPUTS)
TINY = ("test_resnet", "test_convnext", "test_vit", "test_efficientnet")
SHORT = {"epochs": 1, "batch": 16, "warmup_epochs": 0, "frozen_epochs": 0}


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom(folder, films=FILMS, size=SIZE, seed=1, label_noise=0.0, shortcut=0.0, workers=1)
    return folder


def miniature(file: Path, *, outputs: int, root: Path) -> Protocol:
    """The protocol with few small films, tiny networks and short work; its other choices stay."""
    choices: dict[str, Any] = tomllib.loads(file.read_text())
    most = {"reference": len(TINY), "reference-rows": 3}.get(file.stem, 2)
    several = most if outputs == MOST else 2 if "ensemble" in choices else 1
    choices["findings"] = OUTPUTS[outputs]
    source = choices["data"]["source"]
    choices["data"] = {"source": source, "root": str(root), "allow_missing": source == "nih"}
    for place, test in enumerate(choices.get("external", [])):
        test |= {"films": FEW, "size": SIZE, "seed": 2 + place}
    choices["evaluation"] = {**choices.get("evaluation", {}), "resamples": 20}
    choices["explanation"] = {"methods": ["grad-cam"], "films": 1}
    for repeated in {"views", "feature_views"} & {*choices.get("ensemble", {})}:
        choices["ensemble"][repeated] = min(choices["ensemble"][repeated], VIEWS)
    choices["seeds"] = choices.get("seeds", [])[:1]
    if "sweep" in choices:
        choices["sweep"] |= {"trials": 2, "seeds": [1]}
    choices["preparation"] = {**choices.get("preparation", {}), "size": SIDE}
    choices["training"] = {**choices.get("training", {}), **SHORT}
    _shrink(choices, several=several, findings=choices["findings"])
    for variant in choices.get("variant", []):
        _shrink(variant, several=several, findings=choices["findings"])
    return parse_protocol(choices, name=file.name)


def _shrink(section: dict[str, Any], *, several: int, findings: tuple[str, ...]) -> None:
    """Make small what a protocol or a variant of it asks for; what it is about stays."""
    _shrink_balance(section.get("balance", {}), known={*findings, NO_FINDING})
    networks = section.get("network", [])[:several]
    if networks:
        section["network"] = [_tiny(*pair) for pair in zip(networks, TINY, strict=False)]
    training = section.get("training", {})
    if "epochs" in training and training["epochs"] > SHORT["epochs"]:  # a variant that lasts longer
        training["epochs"] = SHORT["epochs"] + 1
    if isinstance(training.get("frozen"), str):
        training["frozen"] = 0.5  # layers have other names


def _tiny(network: dict[str, Any], architecture: str) -> dict[str, Any]:
    kept = {key: network[key] for key in ("name", "head", "colour") if key in network}
    frozen = {"frozen": 0.5} if "frozen" in network.get("training", {}) else {}
    return {**kept, "architecture": architecture, "training": frozen}


def _shrink_balance(balance: dict[str, Any], *, known: set[str]) -> None:
    balance.pop("features", None)  # weights of a network that a package holds
    for key in {"cap", "copy_plan", "cap_after"} & {*balance}:
        rules = [rule for rule in balance[key] if rule["finding"] in known]
        few = {"copy_plan": 0}.get(key, FEW)
        balance[key] = [{**r, **({"films": few} if "films" in r else {})} for r in rules]


def cases() -> list[Any]:
    """Every protocol with every set of outputs; quick is the largest set of those run most."""
    pairs = [(file, outputs) for file in PROTOCOLS for outputs in OUTPUTS]
    quick = [outputs == MOST and file.stem in RUN_MOST for file, outputs in pairs]
    return [
        pytest.param(*pair, marks=[] if soon else pytest.mark.slow, id=f"{pair[0].stem}-{pair[1]}")
        for pair, soon in zip(pairs, quick, strict=True)
    ]


@pytest.mark.parametrize(("file", "outputs"), cases())
def test_a_miniature_reaches_its_page(
    file: Path, outputs: int, phantoms: Path, tmp_path: Path
) -> None:
    run = open_run(miniature(file, outputs=outputs, root=phantoms), out=tmp_path / "run", workers=1)
    report = ablation.report if run.protocol.variant else stages.report
    page = (sweep_study.report if run.protocol.sweep.space else report)(run)
    assert isinstance(page, Path)
    assert Failures(run.out / "failed").reasons() == {}
    assert page.stat().st_size > (30_000 if run.protocol.sweep.space else 50_000)


def test_the_study_reaches_its_page_on_real_films(shared: Path, tmp_path: Path) -> None:
    """The 103 films of the sample at their native size; a list leaves all others out.

    Copies are made of them at that size too: one of each instead of up to 26.
    """
    nih, few = shared / "nih", tmp_path / "others.txt"
    few.write_text("\n".join(file.name for file in (nih / "images-320").iterdir()))
    protocol = miniature(ROOT / "protocols" / "reference.toml", outputs=15, root=nih)
    choices = protocol.model_dump()
    choices["data"]["exclude"] = str(few)
    choices["network"] = choices["network"][:2]
    rules = choices["balance"]["copy_plan"]
    choices["balance"]["copy_plan"] = [{**rule, "copies": 1} for rule in rules]
    run = open_run(parse_protocol(choices, name="real"), out=tmp_path / "run", workers=1)
    page = stages.report(run).read_text()
    assert Failures(run.out / "failed").reasons() == {}
    assert len(prepared(run).manifest) == 103
    assert "Reference study and held-out patients" in page
    label_quality = pd.read_csv(run.out / "audit" / "label_quality.csv").set_index("finding")
    assert label_quality.loc["No Finding", ["labelled", "both"]].tolist() == [348, 206]


def test_the_study_stands_beside_what_is_claimed_and_reached(
    phantoms: Path, tmp_path: Path
) -> None:
    protocol = miniature(ROOT / "protocols" / "reference.toml", outputs=15, root=phantoms)
    choices = protocol.model_dump()
    choices["split"]["apart"] = 0.2
    choices["network"] = choices["network"][1:2]
    run = open_run(parse_protocol(choices, name="apart"), out=tmp_path / "run", workers=1)
    page = stages.report(run).read_text()
    study = pd.read_csv(run.out / "study" / "study.csv").set_index("metric")
    assert study.loc["auc", "published"] == 0.8421
    assert study[["own_test", "held_out"]].notna().all(axis=None)
    assert "Reference study and held-out patients" in page
    apart, met = films_apart(run), patients_seen(run)
    assert len(apart)
    assert not np.isin(prepared(run).manifest.patient[apart], met).any()
    said = predictions_apart(run)[0]
    np.testing.assert_array_equal(np.sort(said.image), np.sort(prepared(run).manifest.image[apart]))


def test_the_trivial_predictor_knows_what_was_trained_on(phantoms: Path, tmp_path: Path) -> None:
    """Where films were copied before the split, their prevalence is that of the copies."""
    protocol = miniature(ROOT / "protocols" / "reference.toml", outputs=15, root=phantoms)
    few = protocol.model_copy(update={"network": protocol.network[1:2]})
    run = open_run(few, out=tmp_path / "run", workers=1)
    seen = plan(run).take(plan(run).part == "train")
    share = np.clip(seen.label.mean(axis=0, dtype=np.float64), 1e-6, 1 - 1e-6)
    loss = stages.evaluation(run).metrics.set_index(["network", "finding", "metric"])["value"]
    test = predictions(run)[0].of("test")
    for place, finding in enumerate(test.findings):
        truth = test.label[:, place] == 1
        expected = -np.where(truth, np.log(share[place]), np.log(1 - share[place])).mean()
        assert loss["trivial", finding, "bce"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "place", ["pipeline.audit_stage.rate_label_quality", "report.imbalance_figures.draw_counts"]
)
def test_a_late_failure_does_not_cost_the_report(
    place: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is there, names what is missing, and the exit status says so; then it is mended."""
    protocol = miniature(ROOT / "protocols" / "demo.toml", outputs=3, root=phantoms)
    choices = protocol.model_dump() | {"ensemble": {}}
    choices["network"] = choices["network"][:1]
    file, out = tmp_path / "late.toml", tmp_path / "run"
    file.write_text(protocol_text(parse_protocol(choices, name="late")))
    chapter = {
        "pipeline.audit_stage.rate_label_quality": "audit",
        "report.imbalance_figures.draw_counts": "balance",
    }[place]

    def fails(*words: object, **named: object) -> None:
        raise KeyError("['No Finding'] not in index")

    with monkeypatch.context() as patch:
        patch.setattr(f"lucency.{place}", fails)
        done = CliRunner().invoke(app, ["run", str(file), "--out", str(out)])
    assert done.exit_code == INCOMPLETE, done.output
    assert "KeyError" in done.output
    page = (out / "report" / "report.html").read_text()
    assert "Not available: this chapter failed with KeyError" in page
    assert 'id="comparison"' in page
    assert "Traceback" in (out / "failed" / f"{chapter}.txt").read_text()
    again = CliRunner().invoke(app, ["run", str(file), "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert not (out / "failed").exists()
    assert "could not be made" not in (out / "report" / "report.html").read_text()
