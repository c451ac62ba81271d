"""Figures of heat maps: drawn in their own units, the same bytes twice."""

import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lucency.core.predictions import Predictions
from lucency.explain.heatmap_results import KINDS, choose_cases
from lucency.explain.heatmaps import Heatmaps, enlarge, even_centres
from lucency.report.film_figures import Outcome
from lucency.report.heatmap_figures import gallery_figure, mean_figure, overlay_figure
from lucency.report.rendering import png, render, svg

CORNERS = np.array([[0.25, 0.5, 0.75, 0.875]])


def _film(side=64, *, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (side, side)).astype(np.uint8)


def _cells(*, low=-2.0, high=6.0):
    return np.linspace(low, high, 16, dtype=np.float32).reshape(4, 4)


def _drawn(cells):
    return cells, even_centres(cells.shape)


def _outlines(axes):
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return {(*box.get_xy(), box.get_width(), box.get_height()) for box in boxes}


def _titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def _words(drawing):
    root = ElementTree.fromstring(drawing)
    return [element.text for element in root.iter() if element.tag.endswith("text")]


def _predictions(probability, label):
    films = len(label)
    chance = np.array(probability)
    return Predictions(
        network="net",
        split="0",
        findings=("Mass",),
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films),
        part=np.full(films, "test"),
        label=np.array(label, dtype=np.float32)[:, None],
        logit=np.log(chance / (1 - chance)).astype(np.float32)[:, None],
        feature=np.empty((films, 0), dtype=np.float32),
    )


def _gallery(cases, *, side=4):
    films = {f"{film}.png": _film(seed=film) for film in range(6)}
    grid = np.stack([_cells(high=film + 1.0) for film in range(6)])[:, None, :side, :side]
    maps = Heatmaps(
        method="grad-cam",
        findings=("Mass",),
        image=np.array(list(films)),
        patient=np.arange(6),
        grid=grid,
        centres=even_centres(grid.shape[2:]),
    )
    boxes = pd.DataFrame(
        [("1.png", "Mass", 0.25, 0.5, 0.5, 0.375), ("1.png", "Edema", 0, 0, 1, 1)],
        columns=["image", "finding", "x", "y", "w", "h"],
    )
    return gallery_figure(cases, finding="Mass", films=films, maps=maps, boxes=boxes)


def test_an_overlay_shows_each_method_in_its_own_units_beside_the_film():
    maps = {
        "grad-cam": _drawn(_cells()),
        "occlusion": _drawn(_cells(high=0.5)),
        "cam": _drawn(np.zeros((2, 3), np.float32)),
    }
    figure = overlay_figure(_film(), maps=maps, corners=CORNERS)
    assert _titles(figure) == [
        "film, with its true boxes",
        "grad-cam",
        "occlusion",
        "cam: 0 everywhere",
    ]
    panels = [axes for axes in figure.axes if len(axes.images)]
    assert all(_outlines(axes) == {(0.25, 0.5, 0.5, 0.375)} for axes in panels)
    assert all((axes.get_xlim(), axes.get_ylim()) == ((0, 1), (1, 0)) for axes in panels)
    assert not any(len(axes.get_xticks()) for axes in panels)
    glow = panels[1].images[1]
    assert glow.get_clim() == (-2, 6)
    opacity = np.asarray(glow.get_alpha())
    assert opacity.min() == 0
    assert opacity.max() == pytest.approx(0.7)
    assert np.argmax(opacity) == np.argmax(np.asarray(glow.get_array()))
    assert panels[2].images[1].get_clim() == (-2, 0.5)
    assert len(panels[3].images) == 1  # nothing lies over the film


def test_a_film_without_a_box_promises_none():
    figure = overlay_figure(_film(), maps={"cam": _drawn(_cells())}, corners=CORNERS[:0])
    assert _titles(figure)[0] == "film"
    assert not _outlines(figure.axes[0])


def test_figures_are_the_same_bytes_twice_and_leave_matplotlib_as_it_was():
    before = dict(rcParams)

    def drawn():
        figure = overlay_figure(_film(), maps={"cam": _drawn(_cells())}, corners=CORNERS)
        return svg(figure, name="mass", title="Heatmaps"), png(figure)

    drawing, picture = drawn()
    assert (drawing, picture) == drawn()
    assert dict(rcParams) == before
    assert picture.startswith(b"\x89PNG")
    assert b"Matplotlib" not in picture
    assert {"film, with its true boxes", "cam"} <= set(_words(drawing))
    assert all(name.startswith("mass-") for name in re.findall(r'\bid="([^"]*)"', drawing))
    assert len(picture) < 300_000


def test_cases_are_sorted_by_how_sure_the_network_is():
    probability = [0.6, 0.9, 0.7, 0.8, 0.1, 0.4, 0.2, 0.95]
    label = [1, 1, 0, 0, 1, 1, 0, np.nan]
    cases = choose_cases(_predictions(probability, label), finding="Mass", threshold=0.5, films=5)
    found = {kind: mine["image"].tolist() for kind, mine in cases.groupby("kind", sort=False)}
    assert found == {
        "true positive": ["1.png", "0.png"],
        "false positive": ["3.png", "2.png"],
        "miss": ["4.png", "5.png"],
    }
    few = choose_cases(_predictions(probability, label), finding="Mass", threshold=0.5, films=1)
    assert few["image"].tolist() == ["1.png", "3.png", "4.png"]
    with pytest.raises(ValueError, match="'Masss' is unknown: expected one of Mass; nearest is"):
        choose_cases(_predictions(probability, label), finding="Masss", threshold=0.5, films=1)


def test_a_gallery_has_a_row_a_kind_and_one_scale():
    cases = pd.DataFrame(
        {"kind": [KINDS[0], KINDS[0], KINDS[2]], "image": ["1.png", "3.png", "0.png"],
         "probability": [0.91, 0.62, 0.2]}
    )  # fmt: skip
    figure = _gallery(cases)
    axes, bar = figure.axes
    titles = [text.get_text() for text in axes.texts]
    assert titles == ["true positive, 0.91\n1.png", "true positive, 0.62\n3.png",
                      "false positive: none", "false negative, 0.20\n0.png"]  # fmt: skip
    assert bar.get_ylim() == (-2, 4)
    films = [image.get_extent() for image in axes.images]
    assert len(films) == 3
    left, right, bottom, top = films[0]
    (box,) = _outlines(axes)
    place = ((box[0] - left) / (right - left), (box[1] - top) / (bottom - top))
    size = (box[2] / (right - left), box[3] / (bottom - top))
    np.testing.assert_allclose((*place, *size), (0.25, 0.5, 0.5, 0.375))
    words = _words(svg(figure, name="gallery", title="Mass"))
    assert "false positive: none" in words


def test_a_film_of_a_gallery_is_under_its_heat_map_as_matplotlib_draws_it():
    """Its own compositing, of two pictures one over the other, is the truth."""
    cases = pd.DataFrame({"kind": [KINDS[0]], "image": ["2.png"], "probability": [0.91]})
    (image,) = _gallery(cases).axes[0].images
    film = cv2.resize(_film(seed=2), (224, 224), interpolation=cv2.INTER_AREA)
    figure = Figure(figsize=(2.24, 2.24), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    large = enlarge(_cells(high=3.0), even_centres((4, 4)), frame=224)
    axes.imshow(film, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    opacity = np.clip(large / large.max(), 0, 1) * 0.7
    axes.imshow(large, cmap="magma", vmin=-2, vmax=3, alpha=opacity, interpolation="nearest")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    np.testing.assert_allclose(np.asarray(image.get_array()), drawn, atol=0.02)


def test_a_map_of_one_cell_is_not_drawn_over_the_films_of_a_gallery():
    cases = pd.DataFrame({"kind": [KINDS[0]], "image": ["1.png"], "probability": [0.91]})
    figure = _gallery(cases, side=1)
    (axes,) = figure.axes  # and no colour bar
    (film,) = axes.images
    picture = np.asarray(film.get_array())
    assert (picture == picture[..., :1]).all(), "grey"
    assert "grad-cam: one cell, not drawn" in figure.get_suptitle()
    assert "not drawn" not in _gallery(cases).get_suptitle()


def test_a_gallery_of_nothing_says_so():
    nothing = pd.DataFrame({"kind": [], "image": [], "probability": []})
    words = _words(svg(_gallery(nothing), name="gallery", title="Mass"))
    expected = ("true positive", "false positive", "false negative")
    assert {f"{kind}: none" for kind in expected} <= set(words)


def test_mean_maps_keep_their_units_and_name_what_is_missing():
    grid = np.stack([_cells(), np.zeros((4, 4), np.float32), _cells(high=1)])
    boxes = pd.DataFrame(
        [("0.png", "Mass", 0.25, 0.25, 0.5, 0.5), ("1.png", "Edema", 0, 0, 1, 1)],
        columns=["image", "finding", "x", "y", "w", "h"],
    )
    maps = Heatmaps(
        method="grad-cam",
        findings=("Mass", "Hernia", "Edema"),
        image=np.array(["0.png", "1.png"]),
        patient=np.arange(2),
        grid=np.stack([grid, grid]),
        centres=even_centres((4, 4)),
    )
    figure = mean_figure(maps, findings=maps.findings, boxes=boxes)
    assert _titles(figure) == ["Mass (1)", "Hernia: no film with a box", "Edema (1)"]
    limits = [axes.images[0].get_clim() for axes in figure.axes if len(axes.images)]
    assert limits == [(-2, 6), (-2, 1)]
    (line,) = figure.axes[0].collections
    corners = line.get_paths()[0].vertices
    np.testing.assert_allclose(corners.min(axis=0), 0.25, atol=0.01)
    np.testing.assert_allclose(corners.max(axis=0), 0.75, atol=0.01)
    assert svg(figure, name="mean", title="Means")


def test_labels_that_are_not_stated_are_named_once_a_film():
    mass = Outcome("Mass", float("nan"), 0.7, 0.5, decided=True)
    edema = Outcome("Edema", float("nan"), 0.1, 0.5, decided=False)

    def page(*outcomes):
        film = {"image": "a.png", "outcomes": outcomes, "figures": []}
        return render("explanation.html.jinja", network="net", methods=["cam"], films=[film])

    bare, partly = page(mass, edema), page(mass, edema._replace(label=0.0))
    assert bare.count("Labels: not stated.") == 1
    assert bare.count("<em>positive</em>") == 1
    assert "label not stated" not in bare
    assert "Labels: not stated." not in partly
    assert "<em>positive, label not stated</em>" in partly
