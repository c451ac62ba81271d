"""What tests of whole runs share: figures are drawn once a structure."""

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

DRAWN: dict[tuple[object, ...], str] = {}


@pytest.fixture(scope="module")
def figures_once() -> Iterator[None]:
    """Let a figure be built as ever, but drawn only if none of its structure has been drawn yet.

    The structure is its size and, for each panel, how many artists of each kind there are: another
    number of findings, networks or panels is drawn anew, other numbers in the same panels are not.
    Drawing is most of what the page of a small run costs.
    """
    from matplotlib.figure import Figure

    draw = Figure.savefig

    def savefig(figure: Figure, file: Any, **how: Any) -> None:
        if not isinstance(file, io.StringIO):
            draw(figure, file, **how)
            return
        kinds = [Counter(type(one).__name__ for one in axes.get_children()) for axes in figure.axes]
        structure = (*figure.get_size_inches(), *(tuple(sorted(one.items())) for one in kinds))
        if structure not in DRAWN:
            draw(figure, file, **how)
            DRAWN[structure] = file.getvalue()
        else:
            file.write(DRAWN[structure])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield
