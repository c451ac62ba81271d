"""What tests of deployment share: a run whose leaderboard has more than networks."""

import shutil
from pathlib import Path

import pytest

from lucency.config.protocol import read_protocol
from lucency.pipeline import stages
from lucency.pipeline.run import open_run
from workplace import NETWORKS


@pytest.fixture(scope="session")
def combined(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with views, an ensemble of them, a learner and neighbours."""
    copy = tmp_path_factory.mktemp("combined") / "run"
    shutil.copytree(finished / "runs" / "demo", copy)
    views = [f"{name} with views" for name in NETWORKS]
    changes = ['ensemble.ensembles=["mean-probability"]', "ensemble.neighbours=3"]
    changes += ['ensemble.learners=["logistic"]', f'ensemble.sources=["{NETWORKS[1]}"]']
    changes += ["ensemble.views=1", f"ensemble.members={views}".replace("'", '"')]
    protocol = read_protocol(copy / "protocol.toml", changes=changes)
    stages.ensembles(open_run(protocol, out=copy, workers=1))
    return copy
