"""Figures draw the numbers of their tables, as SVG text."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from sklearn.metrics import average_precision_score, roc_auc_score

from lucency.balance.imbalance import STEPS, Change
from lucency.core.manifest import PARTS
from lucency.core.predictions import Predictions
from lucency.report.film_figures import draw_histogram
from lucency.report.imbalance_figures import (
    draw_balancing,
    draw_cooccurrence,
    draw_counts,
    draw_steps,
    has_steps,
    narrowed,
)
from lucency.report.metric_figures import (
    CURVES,
    DRAWN,
    GRID,
    choose_findings,
    draw_auc,
    draw_curves,
    draw_each_finding,
    draw_macro_curves,
    draw_pooled,
    draw_training,
)
from lucency.report.rendering import COLOURS, styles_of


def _predictions(label: np.ndarray, score: np.ndarray) -> Predictions:
    films, findings = label.shape
    return Predictions(
        network="alexnet",
        split="0",
        findings=tuple(f"Finding {k}" for k in range(findings)),
        image=np.arange(films).astype(str),
        patient=np.arange(films),
        part=np.full(films, "test"),
        label=label.astype(np.float32),
        logit=score.astype(np.float32),
        feature=np.empty((films, 0), np.float32),
    )


def _scores() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    label = random.random(600) < 0.2
    return label.astype(np.float32), (label + random.normal(size=600)).astype(np.float32)


def test_areas_below_the_drawn_curves_are_scikit_learns() -> None:
    label, score = _scores()
    area = np.trapezoid(CURVES["roc"][0](label, score), GRID)
    assert area == pytest.approx(roc_auc_score(label, score), abs=0.005)
    mean = CURVES["precision-recall"][0](label, score)[2:].mean()
    assert mean == pytest.approx(average_precision_score(label, score), abs=0.005)


def test_every_figure_is_one_described_drawing_with_ids_of_its_own() -> None:
    counts = _change(["Mass", "Hernia"], before=[1200, 3], after=[900, 30])
    drawing = draw_counts(counts)
    root = ElementTree.fromstring(drawing)
    assert root.attrib["role"] == "img"
    assert "width" not in root.attrib
    assert root[0].tag.endswith("title")
    ids = re.findall(r'\bid="([^"]*)"', drawing)
    assert ids
    assert all(name.startswith("counts-") for name in ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', drawing)) <= set(ids)
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"Mass", "Hernia"} <= set(words)
    assert {"1,200 (IRLbl 1.0)", "3 (IRLbl 400.0)", "900 (IRLbl 1.0)", "30 (IRLbl 30.0)"} <= set(
        words
    )


def test_drawing_twice_gives_the_same_bytes_and_leaves_matplotlib_as_it_was() -> None:
    before = dict(rcParams)
    counts = _change(["Mass"], before=[0], after=[0])
    assert draw_counts(counts) == draw_counts(counts)
    assert dict(rcParams) == before


def test_intervals_that_are_not_computable_are_left_empty() -> None:
    rows = [("alexnet", "macro", 0.7, 0.6, 0.8), ("alexnet", "Mass", np.nan, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["network", "finding", "value", "low", "high"])
    table = table.assign(metric="auc", positives=[10, 0])
    drawing = draw_auc(table, findings=["Mass"], style=styles_of(["alexnet"]))
    assert "Mass  (0)" in drawing
    assert "nan" not in drawing


def test_a_finding_without_positives_says_so() -> None:
    label, score = _scores()
    both = _predictions(np.stack([label, 0 * label], axis=1), np.stack([score, score], axis=1))
    style = styles_of(["alexnet"])
    drawing = draw_curves([both], name="roc", findings=both.findings, style=style, best="alexnet")
    assert drawing.count("not computable") == 1
    one = _predictions(label[:, None], score[:, None])
    assert _line(draw_macro_curves([both], style=style)) == _line(
        draw_macro_curves([one], style=style)
    )


def test_curves_are_of_the_scores_that_tables_evaluate() -> None:
    label, score = _scores()
    raw = _predictions(label[:, None], score[:, None])
    level = replace(raw, knot=np.array([[0, 0.0, -1.0], [0, 1.0, 1.0]]))  # level outside 0 to 1
    exact = replace(raw, logit=np.clip(score, 0, 1)[:, None])
    style = styles_of(["alexnet"])
    drawn = [
        _line(draw_curves([one], name="roc", findings=raw.findings, style=style, best="alexnet"))
        for one in (raw, level, exact)
    ]
    assert drawn[1] == drawn[2] != drawn[0]


def test_of_many_findings_the_most_frequent_and_the_worst_are_drawn() -> None:
    positives = np.r_[2, 50, 60, 70, np.full(DRAWN, 5)]
    low = np.r_[np.nan, 0.7, 0.7, 0.7, np.linspace(0.6, 0.4, DRAWN)]
    table = pd.DataFrame({"positives": positives, "value": low + 0.1, "low": low})
    table = table.assign(finding=[f"f{place}" for place in range(len(table))])
    table.loc[0, "value"] = 0.0  # of two films: the worst, but without an interval
    assert choose_findings(table, most=len(table)) == table["finding"].tolist()
    assert choose_findings(table, most=6) == [
        "f1", "f2", "f3", f"f{DRAWN + 1}", f"f{DRAWN + 2}", f"f{DRAWN + 3}"
    ]  # fmt: skip
    assert len(choose_findings(table)) == DRAWN
    assert choose_findings(table.assign(value=np.nan, low=np.nan), most=2) == ["f0", "f3"]


def test_shares_are_written_where_findings_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucency.report.imbalance_figures.WRITTEN", 3)
    words = {}
    for findings in (3, 4):
        names = [f"f{place}" for place in range(findings)]
        drawing = draw_cooccurrence({"t": np.full((findings, findings), 0.37)}, names)
        words[findings] = _words(drawing).count("37")
        assert {"f0", names[-1]} <= set(_words(drawing))
    assert words == {3: 6, 4: 0}


def test_some_findings_of_a_change_keep_their_numbers() -> None:
    change = _change(["Mass", "Hernia", "Edema"], before=[9, 3, 5], after=[9, 6, 5])
    share = np.arange(9.0).reshape(3, 3)
    origins = change.counts[["finding"]].assign(copies=[0, 3, 0])
    change = replace(change, cooccurrence={"before": share}, origins=origins)
    some = narrowed(change, ["Mass", "Edema"])
    assert some.counts["before"].tolist() == [9, 5]
    assert some.cooccurrence["before"].tolist() == [[0, 2], [6, 8]]
    assert some.origins["copies"].tolist() == [0, 0]
    assert some.totals is change.totals


def test_dollar_signs_are_text_not_formulas() -> None:
    counts = _change(["$\\frac{<b>"], before=[1], after=[2])
    assert "$\\frac{&lt;b&gt;" in draw_counts(counts)


def test_training_may_be_one_epoch_and_lack_validation() -> None:
    history = pd.DataFrame(
        {"epoch": [1], "train_loss": [0.5], "val_loss": [np.nan], "val_auc": [np.nan]}
        | {f"{part}_{name}": [np.nan] for part in PARTS[:2] for name in ("accuracy", "pooled_auc")}
    )
    style = styles_of(["alexnet"])
    drawing = draw_training({"alexnet": history}, kept_epoch={"alexnet": 1}, style=style)
    assert "Accuracy at .5" in drawing


def test_no_two_networks_look_alike() -> None:
    style = styles_of([f"network{n}" for n in range(28)])
    assert len(set(style.values())) == 28
    assert style["network0"].colour == style["network7"].colour == COLOURS[0]


def _reliability(films: list[int], *, network: str, finding: str) -> pd.DataFrame:
    edge = np.arange(len(films) + 1) / len(films)
    share = np.where(np.array(films) > 0, edge[1:] ** 2, np.nan)
    return pd.DataFrame({
        "network": network, "finding": finding, "low_edge": edge[:-1], "high_edge": edge[1:],
        "films": films, "mean_probability": (edge[:-1] + edge[1:]) / 2,
        "share": share, "share_low": share - 0.05, "share_high": share + 0.05,
    })  # fmt: skip


def _dots(drawing: str) -> list[np.ndarray]:
    """Return x, y (upwards) and diameter of the dots of each panel, in the drawing's own units."""
    panels = re.findall(r'<g id="[^"]*PathCollection_\d+">(.*?)</g>', drawing, re.DOTALL)
    return [np.array([_dot(path) for path in re.findall(' d="([^"]*)"', p)]) for p in panels]


def _dot(path: str) -> tuple[float, float, float]:
    points = np.array(re.findall(r"[-\d.]+", path), dtype=np.float64).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return (low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, high[0] - low[0]


def test_dots_of_reliability_stand_where_the_table_says() -> None:
    table = _reliability([900, 40, 0, 6, 1], network="alexnet", finding="micro")
    (dots,) = _dots(draw_pooled(table, style=styles_of(["alexnet"])))
    seen = table[table["films"] > 0]
    columns = (seen["mean_probability"], seen["share"], seen["films"])
    for drawn, column in zip((*dots.T[:2], dots[:, 2] ** 2), columns, strict=True):
        slope, offset = np.polyfit(column, drawn, 1)
        assert slope > 0
        np.testing.assert_allclose(slope * column + offset, drawn, atol=0.02)


def test_a_network_and_a_finding_have_a_panel_each() -> None:
    style = styles_of(["alexnet", "densenet121"])
    pooled = [_reliability([5, 2], network=name, finding="micro") for name in style]
    each = [_reliability([5, 2], network="alexnet", finding=name) for name in ("Mass", "Edema")]
    each.append(_reliability([0, 0], network="alexnet", finding="Hernia"))
    table = pd.concat([*pooled, *each])
    assert [len(dots) for dots in _dots(draw_pooled(table, style=style))] == [2, 2]
    drawing = draw_each_finding(
        table, network="alexnet", findings=["Mass", "Edema", "Hernia"], style=style
    )
    assert [len(dots) for dots in _dots(drawing)] == [2, 2]
    assert drawing.count("no film</text>") == 1
    assert "nan" not in drawing
    assert "mathdefault" not in drawing, "powers are not formulas"
    again = draw_each_finding(
        table, network="alexnet", findings=["Mass", "Edema", "Hernia"], style=style
    )
    assert drawing == again


def _line(drawing: str) -> list[str]:
    return re.findall(rf'<path d="([^"]*)"[^>]*stroke: {COLOURS[0]}'.lower(), drawing.lower())


def _change(
    finding: list[str],
    *,
    before: list[int],
    after: list[int],
    none: tuple[int, int] = (0, 0),
    totals: tuple[int, int] = (2000, 1000),
) -> Change:
    """Return invented counts, as balance.imbalance gives them."""
    table = pd.DataFrame({"finding": finding, "before": before, "after": after})
    ratios = {f"irlbl_{name}": table[name].max() / table[name] for name in ("before", "after")}
    shares = [count / total for count, total in zip(none, totals, strict=True)]
    whole = {"when": ["before", "after"], "entries": totals, "no_finding": none, "share": shares}
    rows = [(0, "before", "", np.nan, np.nan, 0, 0, totals[0])]
    rows.append((1, "cap", "Mass", 1200.0, 200.0, 0, totals[0] - totals[1], totals[1]))
    return Change(
        population="all films",
        counts=table.assign(**ratios),
        totals=pd.DataFrame({**whole, "unstated": 0}),
        steps=pd.DataFrame(rows, columns=list(STEPS)),
        summary=pd.DataFrame(),
        cooccurrence={},
        origins=pd.DataFrame(),
    )


def _words(drawing: str) -> list[str]:
    root = ElementTree.fromstring(drawing)
    return [element.text or "" for element in root.iter() if element.tag.endswith("text")]


def test_no_finding_has_a_bar_and_its_share_and_the_totals_stand_above() -> None:
    change = _change(["Mass"], before=[1200], after=[200], none=(700, 250))
    words = _words(draw_counts(change))
    assert {"No Finding", "700 (35.0 %)", "250 (25.0 %)"} <= set(words)
    assert "All films: 2,000 films before, 1,000 entries after" in words
    output = _change(["No Finding", "Mass"], before=[700, 1200], after=[250, 200], none=(700, 250))
    words = _words(draw_counts(output))
    assert words.count("No Finding") == 1
    assert {"700 (IRLbl 1.7, 35.0 %)", "1,200 (IRLbl 1.0)"} <= set(words)
    here = _change(["Mass"], before=[1200], after=[200])
    part = replace(here, population="the training part")
    assert any(
        word.startswith("The training part: 2,000 films") for word in _words(draw_counts(part))
    )


def test_every_step_has_a_bar_with_its_total_and_what_it_changed() -> None:
    change = _change(["Mass"], before=[1200], after=[200])
    drawn = draw_steps(change.steps)
    words = _words(drawn)
    assert {"before", "cap Mass", "2,000", "1,000 (\N{MINUS SIGN}1,000)"} <= set(words)
    assert {"kept", "added", "dropped"} <= set(words)
    both = _words(draw_balancing(change))
    assert {"Mass", "cap Mass", "2,000", "dropped", "before balancing"} <= set(both)


def test_a_method_of_one_step_has_no_figure_of_steps() -> None:
    change = _change(["Mass"], before=[1200], after=[200])
    plain = change.steps.assign(finding="", action=["before", "ml-ros"])
    assert has_steps(change.steps)
    assert not has_steps(plain)
    assert has_steps(pd.concat([plain, plain.tail(1)]))
    alone = replace(change, steps=plain)
    assert draw_balancing(alone) == draw_counts(alone)


def test_the_histograms_of_several_films_share_a_page() -> None:
    random = np.random.default_rng(2)
    found = random.normal(90, 20, (50, 70)).clip(0, 255).astype(np.uint8)
    one, two = (
        draw_histogram(found, found[:40, :40], name="a<b.png", number=number) for number in (0, 1)
    )
    assert "a&lt;b.png: grey-level histograms" in one
    ids = [set(re.findall(r'\bid="([^"]*)"', drawing)) for drawing in (one, two)]
    assert not ids[0] & ids[1]
    assert {"original", "network input", "Grey level"} <= set(_words(one))
