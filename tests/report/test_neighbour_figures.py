"""The figure of similar films: results in order, shared findings marked without colour."""

from xml.etree import ElementTree

import numpy as np
import pytest

from lucency.report.neighbour_figures import SimilarFilm, similar_figure
from lucency.report.rendering import png, svg

FINDINGS = ("Mass", "Pleural_Thickening", "Edema")
NONE = float("nan")


def _film(name, label, *, shape=(64, 64), seed=0):
    film = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    return SimilarFilm(name, film, np.array(label, dtype=np.float32))


def _figure(query, answers, *, requested):
    similarity = [0.9 - 0.01 * place for place in range(len(answers))]
    return similar_figure(
        query,
        answers,
        similarity=similarity,
        findings=FINDINGS,
        requested=requested,
        note="films of Mars",
    )


def _below(axes):
    return [text.get_text() for text in axes.texts]


def _words(figure):
    drawing = svg(figure, name="similar", title="Similar films")
    root = ElementTree.fromstring(drawing)
    return [element.text for element in root.iter() if element.tag.endswith("text")]


def test_answers_stand_in_order_with_their_labels_and_what_is_shared():
    query = _film("q.png", [1, 1, 0])
    answers = [
        _film("a.png", [0, 1, 1], seed=1),
        _film("b.png", [0, 0, 0], seed=2),
        _film("c.png", [0, NONE, 0], seed=3),
    ]
    figure = _figure(query, answers, requested=3)
    shown = [axes for axes in figure.axes if len(axes.images)]
    titles = [axes.get_title() for axes in shown]
    assert titles == ["q.png", "1.  0.900\na.png", "2.  0.890\nb.png", "3.  0.880\nc.png"]
    for axes, given in zip(shown, [query, *answers], strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), given.film)
        assert axes.images[0].get_clim() == (0, 255)
    assert _below(shown[0])[:2] == ["● Mass", "● Pleural Thickening"]
    assert _below(shown[1]) == ["● Pleural Thickening", "○ Edema"]
    assert [text.get_fontweight() for text in shown[1].texts] == ["bold", "normal"]
    assert _below(shown[2]) == ["○ No Finding"]
    assert _below(shown[3]) == ["not stated"]
    words = _words(figure)
    assert any(word.startswith("Films of Mars. ") for word in words)
    assert {"● also in the query", "○ not in the query"} <= set(words)


def test_films_without_a_finding_share_that_but_not_what_is_not_stated():
    healthy, silent = _film("q.png", [0, 0, 0]), _film("s.png", [NONE, 0, 0])
    for query, expected in ((healthy, "● No Finding"), (silent, "○ No Finding")):
        figure = _figure(query, [healthy, silent], requested=2)
        shown = [_below(axes) for axes in figure.axes if len(axes.images)]
        assert shown[1:] == [[expected], ["not stated"]]


@pytest.mark.parametrize(
    ("answers", "title"),
    [
        (0, "similar films: none, the index holds no other film"),
        (1, "similar films: 1 of 7 requested;"),
        (7, "similar films: 7; rank and cosine similarity above each"),
    ],
)
def test_the_title_counts_results_and_those_requested(answers, title):
    several = [_film(f"{place}.png", [0, 1, 0], seed=place) for place in range(answers)]
    figure = _figure(_film("q.png", [1, 0, 0]), several, requested=7)
    assert any(word.startswith(title) for word in _words(figure))
    assert len([axes for axes in figure.axes if len(axes.images)]) == 1 + answers


def test_large_films_are_shrunk_in_shape_and_the_same_values_are_the_same_bytes():
    def drawn():
        query = _film("q.png", [1, 0, 0], shape=(1024, 512))
        figure = _figure(query, [query._replace(image=30 * "x" + ".png")] * 3, requested=3)
        return figure, png(figure), svg(figure, name="s", title="t")

    (figure, *one), (_, *other) = drawn(), drawn()
    shapes = [axes.images[0].get_array().shape for axes in figure.axes if len(axes.images)]
    assert shapes == [(448, 224), (224, 112), (224, 112), (224, 112)]
    assert one == other
    assert f"…{20 * 'x'}.png" in figure.axes[1].get_title()
