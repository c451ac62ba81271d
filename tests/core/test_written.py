"""Tables that were changed after a stage wrote them, and files that are somebody else's."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.audit.shortcuts import load_audit_results
from lucency.core import written
from lucency.core.files import write_table
from lucency.core.film_shards import CONTENT, SHARDS, SUMS, finish_shards, open_shards
from lucency.core.manifest import load_preparation, load_prepared, read_table
from lucency.core.plan import load_plan
from lucency.core.predictions import load_predictions
from lucency.core.saved_files import read_json, write_json
from lucency.core.stage import RECEIPT, produce
from lucency.core.tables import Audit, load_tables, save_tables, write_audit
from lucency.core.written import WRITTEN, writing_into
from lucency.explain.heatmap_results import load_heatmap_results
from lucency.models.classifier import load_classifier
from lucency.models.metadata import read_metadata
from lucency.pipeline.film_inference import predict_disk, requested_films
from lucency.pipeline.run_audit import audit_quality

ROWS = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "score": [0.25, 0.5, 0.75]})


@pytest.fixture
def stage(tmp_path):
    return produce(
        tmp_path / "stage", inputs={"seed": 0}, write=lambda out: write_table(ROWS, out / "t.csv")
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("b.png,0.5\n", ""), id="a-row-gone"),
        pytest.param(lambda text: text.replace("0.75", "0.85"), id="another-number"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="other-ends-of-lines"),
        pytest.param(lambda text: text + "d.png,1\n", id="a-row-more"),
    ],
)
def test_a_stage_s_table_that_was_changed_is_refused(stage, change):
    table = stage / "t.csv"
    assert read_table(table, text=("image",)).equals(ROWS)
    table.write_bytes(change(table.read_text()).encode())
    with pytest.raises(ValueError, match=r"t\.csv was changed or replaced after it was written"):
        read_table(table, text=("image",))


def test_a_stage_of_before_has_no_fingerprints_and_is_read(stage):
    (stage / WRITTEN).unlink()
    (stage / "t.csv").write_text("image,score\na.png,1.0\n")
    assert len(read_table(stage / "t.csv", text=("image",))) == 1


def test_a_stage_that_is_continued_may_read_its_new_tables(tmp_path):
    def write(out):
        write_table(ROWS if (out / "t.csv").exists() else ROWS[:1], out / "t.csv")
        read_table(out / "t.csv", text=("image",))

    partial = tmp_path / "stage.partial"
    produce(tmp_path / "stage", inputs={}, write=write).rename(partial)  # killed as it ended
    again = produce(tmp_path / "stage", inputs={}, write=write)
    assert read_table(again / "t.csv", text=("image",)).equals(ROWS)


def write_score(out, score):
    with writing_into(out, ["scores.csv"]):
        write_table(ROWS.assign(score=score), out / "scores.csv")


def test_own_files_are_written_over(tmp_path):
    write_score(tmp_path / "out", 0.1)
    write_score(tmp_path / "out", 0.2)
    assert set(read_table(tmp_path / "out" / "scores.csv", text=("image",))["score"]) == {0.2}


def test_lists_that_people_edit_are_no_stage_s(tmp_path):
    write_score(tmp_path, 0.1)
    table = tmp_path / "scores.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    assert len(read_table(table, text=("image",))) == 1


def test_a_conclusion_and_a_number_that_were_changed_are_refused(tmp_path):
    @dataclass
    class Found:
        table: pd.DataFrame
        conclusion: str
        about: dict[str, int] = field(default_factory=dict)

    found = Found(table=ROWS, conclusion="No difference.", about={"films": 3})
    stage = produce(tmp_path / "stage", inputs={}, write=lambda out: save_tables(found, out))
    assert load_tables(Found, stage, text=("image",)).about == {"films": 3}
    (stage / "about.json").rename(stage / "kept")
    with pytest.raises(ValueError, match=r"its table about\.json is absent"):
        load_tables(Found, stage, text=("image",))
    (stage / "kept").rename(stage / "about.json")
    for name, other in (("conclusion.txt", "A difference.\n"), ("about.json", '{"films": 4}')):
        whole = (stage / name).read_bytes()
        (stage / name).write_text(other)
        with pytest.raises(ValueError, match=f"{name} was changed or replaced"):
            load_tables(Found, stage, text=("image",))
        (stage / name).write_bytes(whole)


def another_word(file):
    return file.read_text().replace('": "', '": "x', 1).encode()


def other_size(file):
    return file.read_text().replace('"size": 64', '"size": 96').encode()


def sealed_again(file):
    held = read_json(file)
    write_json(file, {**held, "epoch": held["epoch"] + 1})
    return file.read_bytes()


def half(file):
    content = BytesIO()
    np.save(content, np.load(file) / 2)
    return content.getvalue()


def changed(name, change):
    def exchange(file):
        with np.load(file) as held:
            arrays = dict(held)
        content = BytesIO()
        np.savez_compressed(content, **{**arrays, name: change(arrays[name])})
        return content.getvalue()

    return exchange


def films_of_plan(file):
    return pd.read_csv(file.with_name("plan.csv"))["image"].unique().astype(object)


@pytest.mark.parametrize(
    ("name", "read", "change"),
    [
        ("audit/audit.json", lambda file: load_audit_results(file.parent), another_word),
        ("explanation/heatmaps.json", lambda file: load_heatmap_results(file.parent), another_word),
        (
            "explanation/maps-0.npz",
            lambda file: load_heatmap_results(file.parent),
            changed("grid", np.negative),
        ),
        (
            "predictions/test_resnet/predictions.npz",
            load_predictions,
            changed("logit", np.negative),
        ),
        ("explanation/cases.csv", lambda file: load_heatmap_results(file.parent), lambda _: b""),
        ("networks/test_resnet/classifier.json", lambda f: read_metadata(f.parent), sealed_again),
        ("plan/weight.npy", lambda file: load_plan(file.parent, films_of_plan(file)), half),
        ("prepared/preparation.json", lambda file: load_preparation(file.parent), other_size),
    ],
)
def test_what_a_run_holds_and_was_exchanged_for_other_whole_files_is_refused(
    finished, tmp_path, name, read, change
):
    stage = (finished / "runs" / "demo" / name).parent
    file = shutil.copytree(stage, tmp_path / "stage") / Path(name).name
    read(file)
    file.write_bytes(change(file))
    with pytest.raises(ValueError, match=f"{file.name} was changed or replaced"):
        read(file)


def test_films_of_another_run_are_refused(finished, tmp_path):
    """Their checksums are right: shards, or the whole folder, were exchanged."""
    run = Path(shutil.copytree(finished / "runs" / "demo", tmp_path / "run"))
    other = Path(shutil.copytree(run / "prepared", tmp_path / "other"))
    shards = open_shards(other / SHARDS, image=load_prepared(other).manifest.image, side=64)
    index = np.array(shards.index)
    index[[0, 1]] = index[[1, 0]]
    receipts = [
        {CONTENT: line.split()[0]} for line in (other / SHARDS / SUMS).read_text().splitlines()[:-1]
    ]
    finish_shards(other / SHARDS, index, receipts)
    with pytest.raises(ValueError, match="shards was changed or replaced after it was written"):
        load_prepared(other)
    (other / WRITTEN).unlink()
    load_prepared(other)
    receipt = read_json(other / RECEIPT)
    (other / RECEIPT).write_text(json.dumps({**receipt, "films": "0123456789abcdef"}))
    shutil.rmtree(run / "prepared")
    other.rename(run / "prepared")
    classifier = load_classifier(run / "networks" / "test_resnet")
    for act in (
        lambda: audit_quality(run),
        lambda: requested_films(run, [Path("00000001_000.png")], classifier),
        lambda: predict_disk(run, [finished / "chestxray14" / "images"], name="test_resnet"),
    ):
        with pytest.raises(ValueError, match=r"does not hold the films that .* was made from"):
            act()


def test_what_failed_half_way_leaves_no_name_that_others_may_take(tmp_path):
    def fails():
        with writing_into(tmp_path, ["a.csv", "b.csv"]):
            write_table(ROWS, tmp_path / "a.csv")
            raise ValueError("no page")

    with pytest.raises(ValueError, match="no page"):
        fails()
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"b\.csv is there, and no written\.json beside it names"):
        fails()
    assert (tmp_path / "b.csv").read_text() == "mine"


def test_a_name_whose_file_is_gone_is_free(tmp_path):
    write_score(tmp_path, 0.1)
    (tmp_path / "scores.csv").unlink()
    (tmp_path / "scores.csv").write_text("mine")
    with writing_into(tmp_path, ["other.csv"]):
        write_table(ROWS, tmp_path / "other.csv")
    assert (tmp_path / "scores.csv").read_text() == "mine"


def test_two_answers_at_once_do_not_mix(tmp_path):
    def other():
        with writing_into(tmp_path, ["other.csv"]):
            write_table(ROWS, tmp_path / "other.csv")

    with ThreadPoolExecutor(1) as pool:
        with writing_into(tmp_path, ["scores.csv"]):
            second = pool.submit(other)
            time.sleep(0.2)
            write_table(ROWS, tmp_path / "scores.csv")
        with pytest.raises(ValueError, match=r"holds scores\.csv of another answer"):
            second.result(timeout=30)


def test_a_call_that_was_killed_is_repeated(tmp_path, monkeypatch):
    def killed():
        with writing_into(tmp_path, ["a.csv", "b.csv"]):
            write_table(ROWS, tmp_path / "a.csv")
            monkeypatch.setattr(written, "_note", lambda *_: None)  # as by kill -9
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    monkeypatch.undo()
    for _ in range(2):
        with writing_into(tmp_path, ["a.csv", "b.csv"]):
            for name in ("a.csv", "b.csv"):
                write_table(ROWS, tmp_path / name)
    assert {one.name for one in tmp_path.iterdir()} == {"a.csv", "b.csv", WRITTEN}


def test_files_of_somebody_else_are_kept(tmp_path):
    mine = tmp_path / "scores.csv"
    mine.write_text("my,notes\n")
    with pytest.raises(ValueError, match=r"scores\.csv is there, and no written\.json beside it"):
        write_score(tmp_path, 0.1)
    assert mine.read_text() == "my,notes\n"
    assert not (tmp_path / WRITTEN).exists()


def test_tables_of_two_answers_do_not_stand_beside_each_other(tmp_path):
    write_score(tmp_path, 0.1)
    with pytest.raises(ValueError, match=r"holds scores\.csv of another answer"):  # noqa: SIM117
        with writing_into(tmp_path, ["other.csv"]):
            write_table(ROWS, tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()


def test_an_answer_that_somebody_wrote_in_is_kept(tmp_path):
    audit = Audit(tables={"errors": ROWS}, shown=("errors",), remarks=(), conclusion="none")
    write_audit(audit, tmp_path / "out")
    table = tmp_path / "out" / "errors.csv"
    table.write_text(table.read_text().replace("b.png", "b.png looks right"))
    with pytest.raises(ValueError, match=r"errors\.csv was changed since it was written"):
        write_audit(audit, tmp_path / "out")
    assert "looks right" in table.read_text()
