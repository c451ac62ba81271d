"""What several tests share."""

import io
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

import bytecode  # noqa: F401
import offline
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest
from lucency.core.parallel import set_ranks
from lucency.data.labels import read_nih
from time_limit import within
from workplace import build_workplace, train_run

offline.block()
offline.block_children()
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup ignores it; tests press Ctrl-C
ROOT = Path(__file__).resolve().parents[1]
MOST_SECONDS = 1_800  # of a test, its own fixtures with it, beside other work
DRAWN: dict[tuple[object, ...], str] = {}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples beside the repository, or a skip that says what is missing."""
    folder = Path(os.environ.get("LUCENCY_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: set LUCENCY_SHARED to the folder of real samples")
    return folder


@pytest.fixture(scope="session")
def nih_films(shared: Path) -> Manifest:
    """The published films, read once: 14 findings and, last, No Finding."""
    films = read_nih(shared / "nih", findings=(*FINDINGS, NO_FINDING))
    films.label.flags.writeable = False
    return films


@pytest.fixture(scope="session")
def chestxray14(nih_films: Manifest) -> np.ndarray:
    """The published labels of the 14 findings."""
    label = nih_films.label[:, : len(FINDINGS)].copy()
    label.flags.writeable = False
    return label


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """After a test this process is again the one that the environment says."""
    yield
    set_ranks(rank=None, local_rank=None, world_size=None)


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """A test that waits for what never comes fails."""
    with within(MOST_SECONDS):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small phantoms, label files, tables, protocols and a run of two small networks.

    The run, runs/demo, is trained once for all processes of pytest-xdist. Each has a copy, whose
    films are those of the first: a run knows them by their absolute paths.
    """
    own = tmp_path_factory.getbasetemp()
    whole = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    done = whole.with_suffix(".done")
    with FileLock(whole.with_suffix(".lock")):
        if not done.exists():
            whole.mkdir()
            build_workplace(whole)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(whole)
                train_run()
            done.touch()
    return Path(shutil.copytree(whole, own / "workplace", symlinks=True))


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
