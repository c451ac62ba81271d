"""The model card: its numbers are those of the run's tables, its items those of TRIPOD+AI."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from cards import plain, tables
from lucency.core.saved_files import read_json
from lucency.core.written import WRITTEN
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.deploy.model_card import escape, model_card, traps_of
from lucency.deploy.model_export import export_model
from lucency.pipeline import stages
from lucency.pipeline.film_predictors import open_predictor
from lucency.pipeline.run import open_run_folder
from workplace import NETWORKS

NAME = NETWORKS[1]
UNTIDY = "A|b <script>alert(1)</script> *x* _y_ [z](http://a) `c` & ~~d~~"
NUMBER = re.compile(r"-?\d+\.\d+")
SCORES = {
    "AUC": "auc", "average precision": "average_precision", "Brier score": "brier", "ECE": "ece",
    "F1": "f1", "precision": "precision", "recall": "recall", "specificity": "specificity",
}  # fmt: skip
# Collins et al., BMJ 2024;385:e078378, table 2: 27 items, 52 with their parts.
PARTS = {
    3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc",
    23: "ab", 27: "abc",
}  # fmt: skip
ITEMS = [f"{item}{part}" for item in range(1, 28) for part in PARTS.get(item, [""])]


@pytest.fixture(scope="module")
def folder(finished: Path) -> Path:
    return finished / "runs" / "demo"


@pytest.fixture(scope="module")
def card(folder: Path) -> str:
    return model_card(open_run_folder(folder), NAME)


@pytest.fixture
def altered(folder: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change: of a version that noted no tables."""
    return shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns(WRITTEN))


def require_equal(shown: str, value: float, low: float, high: float) -> None:
    """Hold what a cell shows against a row of a table."""
    found = [float(one) for one in NUMBER.findall(shown)]
    expected = [value, low, high] if np.isfinite(low) and np.isfinite(high) else [value]
    if np.isnan(value):
        assert shown == "not computable"
        return
    assert found == [round(one, 3) + 0.0 for one in expected], shown


def metrics_of(folder: Path, name: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    table = pd.read_csv(folder / "evaluation" / "metrics.csv")
    mine = table[table["network"] == name]
    ends = zip(mine["value"], mine["low"], mine["high"], strict=True)
    return dict(zip(zip(mine["finding"], mine["metric"], strict=True), ends, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_those_of_the_evaluation(folder: Path, name: str):
    known = metrics_of(folder, name)
    several = tables(model_card(open_run_folder(folder), name))["Scores on test films"]
    compared = 0
    for row in (row for table in several for row in table):
        for title in SCORES.keys() & row.keys():
            require_equal(row[title], *known[row["finding"], SCORES[title]])
            compared += 1
    assert compared == len(SCORES) * 4  # three findings and macro


def test_thresholds_are_those_of_validation(folder: Path, card: str):
    table = pd.read_csv(folder / "evaluation" / "thresholds.csv")
    fitted = table[table["network"] == NAME].set_index("finding")["threshold"]
    shown = {row["finding"]: row["threshold"] for row in tables(card)["Scores on test films"][1]}
    assert shown.pop("macro") == ""
    assert {name: float(one) for name, one in shown.items()} == fitted.round(4).to_dict()


def test_counts_are_those_of_the_manifest_and_the_plan(folder: Path, card: str):
    films = pd.read_csv(folder / "prepared" / "manifest.csv").set_index("image")
    seen = pd.read_csv(folder / "plan" / "plan.csv")
    about, labels = tables(card)["Data"][:2]
    for part in ("train", "val", "test"):
        mine = seen[seen["part"] == part]
        own = films.loc[mine["image"].unique()]
        counts = {row[""]: row[part].replace(",", "") for row in about}
        assert int(counts["films"]) == len(own)
        assert int(counts["patients"]) == own["patient"].nunique()
        assert int(counts["entries seen (with copies)"]) == len(mine)
        assert int(counts["films, view AP"]) == (own["view"] == "AP").sum()
        assert float(counts["median age, years"]) == own["age"].median()
        for row in labels:
            assert int(row[part]) == own[row["finding"]].sum()


def test_subgroups_are_those_of_the_evaluation(folder: Path):
    run = open_run_folder(folder)
    table = pd.read_csv(folder / "evaluation" / "subgroups.csv")
    best = table["network"].iloc[0]
    macro = table[(table["finding"] == "macro") & (table["films"] > 0)]
    (shown,) = tables(model_card(run, best))["Subgroups"]
    assert len(shown) == len(macro) > 0
    for row, known in zip(shown, macro.to_dict("records"), strict=True):
        assert (row["group"], int(row["films"])) == (known["group"], known["films"])
        require_equal(row["AUC"], known["auc"], known["auc_low"], known["auc_high"])
        require_equal(row["gap"], known["gap"], known["gap_low"], known["gap_high"])
    (other,) = {*NETWORKS} - {best}
    assert "Subgroups" not in tables(model_card(run, other))


def test_a_number_is_read_and_never_recomputed(altered: Path):
    file = altered / "evaluation" / "metrics.csv"
    table = pd.read_csv(file)
    place = (table["network"] == NAME) & (table["metric"] == "auc")
    table.loc[place, ["value", "low", "high"]] = (0.123, 0.045, 0.678)
    table.to_csv(file, index=False)
    text = model_card(open_run_folder(altered), NAME)
    assert text.count("0.123 (0.045 to 0.678)") == 5  # three findings, macro, and the head
    with pytest.raises(AssertionError):
        require_equal("0.124", 0.123, np.nan, np.nan)


def test_every_item_of_tripod_ai_is_answered(card: str):
    (shown,) = tables(card)["TRIPOD+AI"]
    assert len(ITEMS) == 52
    assert [row["item"] for row in shown] == ITEMS
    assert {re.sub(r"\D", "", row["item"]) for row in shown} == {str(n) for n in range(1, 28)}
    assert all(row["topic"] and row["answer"] for row in shown)
    for item in ("17", "18a", "18b", "18d", "19"):  # which no run can know
        assert shown[ITEMS.index(item)]["answer"] == "not reported"


def test_what_the_run_does_not_hold_is_not_reported(altered: Path, card: str):
    assert "What the leak doctor finds" not in card
    assert "Labels compared with a reference" in card
    for name in ("check", "audit", "explanation"):
        shutil.rmtree(altered / name)
    text = model_card(open_run_folder(altered), NAME)
    assert "What the leak doctor finds: *not reported*" in text
    assert "Labels compared with a reference" not in text
    assert "## Heat maps" not in text
    assert "## External tests\n\n*not reported*" in card


def test_issues_of_other_networks_are_left_out(altered: Path):
    file = altered / "check" / "issues.csv"
    table = pd.read_csv(file)
    own, other = (f"{name}: this is of {name}" for name in (NAME, NETWORKS[0]))
    rows = [table.iloc[0].to_dict() | {"message": text} for text in (own, other, "of all")]
    rows[2]["severity"] = "serious"
    pd.DataFrame(rows).to_csv(file, index=False)
    text = model_card(open_run_folder(altered), NAME)
    assert f"* {own.replace('_', '_')}." in text
    assert "* **Serious.** Of all." in text
    assert other not in text


def test_known_traps_of_the_source_and_the_split_are_named(altered: Path, finished: Path):
    file, known = altered / "protocol.toml", (altered / "protocol.toml").read_text()
    root = f'source = "nih"\nroot = "{finished / "chestxray14"}"'
    text = re.sub(r'source = "phantom"\nroot = ".*"', root, known)
    file.write_text(text.replace('method = "patient"', 'method = "official"'))
    card = model_card(open_run_folder(altered), NAME)
    assert "* **Labels.** Text-mined:" in card
    assert "It does not mean normal." in card
    assert "The split is the official one: test films are sicker" in card
    file.write_text(known.replace('method = "patient"', 'method = "image"'))
    assert "* **Split.** By film: films of one patient" in model_card(
        open_run_folder(altered), NAME
    )
    leaking = known.replace('method = "patient"', 'method = "image"')
    early = leaking.replace('method = "none"\nthen', 'method = "cap-and-copy"\nthen')
    file.write_text(early.replace("before_split = false", "before_split = true"))
    card = model_card(open_run_folder(altered), NAME)
    assert "* **Split.** After balancing: copies of one film may be in several parts" in card
    assert "before the split, which is a mistake" in card
    assert "It does not mean normal." not in model_card(open_run_folder(altered), NAME)


@pytest.mark.parametrize("source", COLLECTIONS)
def test_a_collection_has_its_own_traps(source: str):
    own = [trap[1:].rstrip(".") for trap in COLLECTIONS[source].traps]
    assert own
    assert [trap[1:-1] for trap in traps_of(source)] == own
    assert all(trap[0] == trap[0].upper() and trap[-1] == "." for trap in traps_of(source))
    assert not {*traps_of(source)} & {*traps_of("csv")}
    assert traps_of("dicom") == traps_of("csv")


def test_names_are_shown_as_they_are(altered: Path):
    for file in altered.rglob("*"):
        if file.suffix in (".csv", ".json", ".toml"):
            sealed = file.name == "classifier.json"
            held = json.dumps(read_json(file)) if sealed else file.read_text()
            file.write_text(held.replace("Effusion", UNTIDY))
    text = model_card(open_run_folder(altered), NAME)
    shown = [row["finding"] for row in tables(text)["Scores on test films"][0]]
    assert UNTIDY in shown
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    assert "<script" not in html
    assert "<a href" not in html
    assert "<s>" not in html


@pytest.mark.parametrize("name", [UNTIDY, "a\nb\x00\u202e", "\\|", "<b>", "Pleural_Thickening"])
def test_escaped_text_is_what_is_read(name: str):
    (token,) = [
        one
        for one in MarkdownIt("commonmark").enable("table").parse(f"x {escape(name)} x")
        if one.children
    ]
    expected = "".join(one if one.isprintable() else " " for one in name)
    assert plain(token) == f"x {expected} x"


def test_a_predictor_beside_the_networks_has_a_card(combined: Path):
    run = open_run_folder(combined)
    board = pd.read_csv(combined / "ensemble" / "leaderboard" / "leaderboard.csv")
    board = board[board["kind"] != "network"].set_index("network")
    assert {*board["kind"]} == {"ensemble", "learner", "neighbours", "views"}
    for name, row in board.iterrows():
        text = model_card(run, str(name))
        assert f"# Model card: {name}" in text
        assert "Scores per finding: *not reported*" in text
        assert f"| {row['place']} of 7" in text
        (means,) = tables(text)["Scores on test films"][0]
        require_equal(means["AUC"], row["auc"], row["auc_low"], row["auc_high"])
        require_equal(means["F1"], row["f1"], row["f1_low"], row["f1_high"])


def test_an_ensemble_names_its_members_and_their_weights(combined: Path):
    name = "mean-probability"
    shown = tables(model_card(open_run_folder(combined), name))["Model"]
    assert [row["network"] for row in shown[0]] == [*NETWORKS]  # of members that are views
    table = pd.read_csv(combined / "ensemble" / name / "weights.csv")
    known = table.pivot_table(index="finding", columns="network", values="weight")
    members = [f"{one} with views" for one in NETWORKS]
    for row in shown[1]:
        assert [float(row[one]) for one in members] == [
            round(known.loc[row["finding"], one], 3) for one in members
        ]


def test_a_part_of_a_run_names_no_other_network_the_best(combined: Path, tmp_path: Path):
    run = Path(shutil.copytree(combined, tmp_path / "run"))
    stages.report(open_run_folder(run))
    best = open_predictor(run).name
    parts = ("ensemble/leaderboard", f"networks/{NETWORKS[1]}", "protocol.toml")
    for part in parts:
        (run / part).rename(run / "elsewhere")
        with pytest.raises(ValueError, match=f"found no {part}, which its report is about: copy"):
            open_predictor(run)
        assert open_predictor(run, name=NETWORKS[0]).name == NETWORKS[0]
        (run / "elsewhere").rename(run / part)
    assert open_predictor(run).name == best


def test_what_was_not_kept_has_neither_card_nor_export(combined: Path, tmp_path: Path):
    copy = shutil.copytree(combined, tmp_path / "run")
    (copy / "ensemble" / "mean-probability" / "predictor.json").unlink()
    with pytest.raises(ValueError, match="mean-probability was made before predictors were kept"):
        model_card(open_run_folder(copy), "mean-probability")
    with pytest.raises(ValueError, match="mean-probability was made before predictors were kept"):
        export_model(copy, name="mean-probability", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_issues_of_all_networks_behind_a_predictor_are_shown(combined: Path, tmp_path: Path):
    old = shutil.ignore_patterns(WRITTEN)
    copy = shutil.copytree(combined, tmp_path / "run", ignore=old)
    file = copy / "check" / "issues.csv"
    row = pd.read_csv(file).iloc[0].to_dict()
    several = [f"{name}: this is of {name}" for name in NETWORKS]
    pd.DataFrame([row | {"message": text} for text in several]).to_csv(file, index=False)
    shown = {
        name: [text for text in several if text in model_card(open_run_folder(copy), name)]
        for name in ("mean-probability", f"{NAME} with views", f"logistic on {NAME}")
    }
    assert [*shown.values()] == [several, several[1:], several[1:]]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: None, "no predictor 'nobody'; expected one of test_convnext"),
        (lambda folder: shutil.rmtree(folder / "evaluation"), "not evaluated yet"),
    ],
)
def test_what_has_no_card_is_refused(altered: Path, spoil: Callable[[Path], None], message: str):
    spoil(altered)
    with pytest.raises(ValueError, match=message):
        model_card(open_run_folder(altered), "nobody")
