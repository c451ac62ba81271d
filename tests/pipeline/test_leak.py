"""What a leak is worth: nobody meets the patients set apart, and nothing is done twice."""

from pathlib import Path

import numpy as np
import pytest

from lucency.config.protocol import Protocol, parse_protocol
from lucency.pipeline import leakage_study as leak
from lucency.pipeline import stages
from lucency.pipeline.run import Run, open_run
from lucency.pipeline.stages import heatmaps


def _protocol(**data: object) -> Protocol:
    return parse_protocol(
        {
            "name": "tiny",
            "findings": ["Infiltration", "Effusion"],
            "data": {"films": 120, "size": 32, **data},
            "preparation": {"size": 32},
            "balance": {
                "method": "cap-and-copy",
                "copy_plan": [{"finding": "Effusion", "copies": 2}],
            },
            "training": {"epochs": 1, "batch": 16},
            "evaluation": {"resamples": 20},
            "explanation": {"films": 1, "methods": ["grad-cam"]},
            "network": [{"name": "test_convnext"}],
        },
        name="tiny",
    )


def _opened(folder: Path, **data: object) -> Run:
    return open_run(_protocol(**data), out=folder, workers=1)


def test_a_list_of_the_user_s_own_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="the schemes leave out films of their own"):
        leak.report(_opened(tmp_path / "out", exclude="mine.txt"))
    assert not (tmp_path / "out" / "schemes").exists()


def test_what_a_scheme_cannot_do_is_refused_before_any_film_is_read(tmp_path: Path):
    choices = _protocol().model_dump() | {"ensemble": {"learners": ["logistic"]}}
    run = open_run(parse_protocol(choices, name="tiny"), out=tmp_path / "out", workers=1)
    with pytest.raises(ValueError, match=r"split by film: remove them .* --set ensemble.neighbo"):
        leak.report(run)
    choices = _protocol().model_dump() | {"balance": {"method": "ml-ros"}}
    run = open_run(parse_protocol(choices, name="tiny"), out=tmp_path / "other", workers=1)
    with pytest.raises(ValueError, match=r"^scheme reference: balance: before_split means"):
        leak.report(run)
    for name in ("out", "other"):
        assert [file.name for file in (tmp_path / name).iterdir()] == ["protocol.toml"]


@pytest.mark.slow
def test_every_scheme_sees_the_same_films_and_nobody_the_patients_apart(tmp_path: Path):
    run = _opened(tmp_path / "out")
    page = leak.report(run)
    apart = set(leak.held_out_predictions(run, "reference")[0].patient.tolist())
    everybody = set(stages.manifest(run).patient.tolist())
    leaking = {}
    for name, member in leak.schemes(run).items():
        films, plan = stages.prepared(member).manifest, stages.plan(member)
        assert set(films.patient.tolist()) == everybody - apart
        of = {
            part: set(films.patient[plan.row[plan.part == part]].tolist())
            for part in ("train", "test")
        }
        leaking[name] = len(of["train"] & of["test"])
        seen = heatmaps(member)
        explained = {*seen.cases["image"], *(name for maps in seen.maps for name in maps.image)}
        assert explained <= set(films.image[plan.row[plan.part == "test"]].tolist())
    assert leaking["reference"] > 0
    assert leaking["by-image"] > 0
    assert leaking["by-patient"] == 0
    table = leak.inflation(run)
    assert table["scheme"].unique().tolist() == list(leak.SCHEMES)
    np.testing.assert_allclose(table["own_test"] - table["held_out"], table["inflation"])
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.*")}
    assert leak.report(_opened(tmp_path / "out")) == page
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.*")}
