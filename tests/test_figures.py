"""The figures draw what their tables say, as text that stands in a page."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from sklearn.metrics import average_precision_score, roc_auc_score

from lucency.predictions import Predictions
from lucency.show import figures
from lucency.show.balancing import draw_counts
from lucency.show.canvas import COLOURS, style_networks
from lucency.show.figures import GRID, draw_auc, draw_macro_curves, draw_roc, draw_training
from lucency.show.reliability import draw_each_finding, draw_pooled
from lucency.values import PARTS


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
    roc = figures.CURVES
    by_name = {name: trace for trace, (_, _, name) in roc.items()}
    area = np.trapezoid(by_name["roc"](label, score), GRID)
    assert area == pytest.approx(roc_auc_score(label, score), abs=0.005)
    mean = by_name["precision-recall"](label, score)[2:].mean()
    assert mean == pytest.approx(average_precision_score(label, score), abs=0.005)


def test_every_figure_is_one_described_drawing_with_ids_of_its_own() -> None:
    counts = _counts(["Mass", "Hernia"], before=[1200, 3], after=[900, 30])
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
    counts = _counts(["Mass"], before=[0], after=[0])
    assert draw_counts(counts) == draw_counts(counts)
    assert dict(rcParams) == before


def test_intervals_that_are_not_computable_are_left_empty() -> None:
    rows = [("alexnet", "macro", 0.7, 0.6, 0.8), ("alexnet", "Mass", np.nan, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["network", "finding", "value", "low", "high"])
    table = table.assign(metric="auc", positives=[10, 0])
    drawing = draw_auc(table, findings=["Mass"], style=style_networks(["alexnet"]))
    assert "Mass  (0)" in drawing
    assert "nan" not in drawing


def test_a_finding_without_positives_says_so() -> None:
    label, score = _scores()
    both = _predictions(np.stack([label, 0 * label], axis=1), np.stack([score, score], axis=1))
    style = style_networks(["alexnet"])
    assert draw_roc([both], style=style, best="alexnet").count("not computable") == 1
    one = _predictions(label[:, None], score[:, None])
    assert _line(draw_macro_curves([both], style=style)) == _line(
        draw_macro_curves([one], style=style)
    )


def test_dollar_signs_are_text_not_formulas() -> None:
    counts = _counts(["$\\frac{<b>"], before=[1], after=[2])
    assert "$\\frac{&lt;b&gt;" in draw_counts(counts)


def test_training_may_be_one_epoch_and_lack_validation() -> None:
    history = pd.DataFrame(
        {"epoch": [1], "train_loss": [0.5], "val_loss": [np.nan], "val_auc": [np.nan]}
        | {f"{part}_{name}": [np.nan] for part in PARTS[:2] for name in ("accuracy", "pooled_auc")}
    )
    style = style_networks(["alexnet"])
    drawing = draw_training({"alexnet": history}, kept_epoch={"alexnet": 1}, style=style)
    assert "Accuracy at .5" in drawing


def test_no_two_networks_look_alike() -> None:
    style = style_networks([f"network{n}" for n in range(28)])
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
    (dots,) = _dots(draw_pooled(table, style=style_networks(["alexnet"])))
    seen = table[table["films"] > 0]
    columns = (seen["mean_probability"], seen["share"], seen["films"])
    for drawn, column in zip((*dots.T[:2], dots[:, 2] ** 2), columns, strict=True):
        slope, offset = np.polyfit(column, drawn, 1)
        assert slope > 0
        np.testing.assert_allclose(slope * column + offset, drawn, atol=0.02)


def test_a_network_and_a_finding_have_a_panel_each() -> None:
    style = style_networks(["alexnet", "densenet121"])
    pooled = [_reliability([5, 2], network=name, finding="micro") for name in style]
    each = [_reliability([5, 2], network="alexnet", finding=name) for name in ("Mass", "Edema")]
    each.append(_reliability([0, 0], network="alexnet", finding="Hernia"))
    table = pd.concat([*pooled, *each])
    assert [len(dots) for dots in _dots(draw_pooled(table, style=style))] == [2, 2]
    drawing = draw_each_finding(
        table, network="alexnet", findings=["Mass", "Edema", "Hernia"], look=style["alexnet"]
    )
    assert [len(dots) for dots in _dots(drawing)] == [2, 2]
    assert drawing.count("no film</text>") == 1
    assert "nan" not in drawing
    assert "mathdefault" not in drawing, "powers are not formulas"
    again = draw_each_finding(
        table, network="alexnet", findings=["Mass", "Edema", "Hernia"], look=style["alexnet"]
    )
    assert drawing == again


def _line(drawing: str) -> list[str]:
    return re.findall(rf'<path d="([^"]*)"[^>]*stroke: {COLOURS[0]}'.lower(), drawing.lower())


def _counts(finding: list[str], *, before: list[int], after: list[int]) -> pd.DataFrame:
    table = pd.DataFrame({"finding": finding, "before": before, "after": after})
    ratios = {f"irlbl_{name}": table[name].max() / table[name] for name in ("before", "after")}
    return table.assign(**ratios)
