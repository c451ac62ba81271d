"""What several tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bytecode  # noqa: F401
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest
from lucency.core.parallel import set_ranks
from lucency.data.labels import read_nih
from workplace import build_workplace, train_run

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup ignores it; tests press Ctrl-C
ROOT = Path(__file__).resolve().parents[1]


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


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small phantoms, label files, tables of predictions and protocols."""
    place = tmp_path_factory.mktemp("workplace")
    build_workplace(place)
    return place


@pytest.fixture(scope="session")
def finished(workplace: Path) -> Path:
    """The same folder, with the finished run runs/demo of two small networks, trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        train_run()
    return workplace
