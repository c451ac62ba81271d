"""What several tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lucency.core.parallel import set_ranks
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
