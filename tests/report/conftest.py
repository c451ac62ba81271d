"""One invented experiment and its page, for all tests of pages."""

import pytest
from invented import an_experiment, written

from lucency.core.manifest import FINDINGS
from lucency.report.run_page import Experiment


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """Three findings and four networks."""
    return an_experiment(findings=FINDINGS[:3])


@pytest.fixture(scope="session")
def text(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the experiment."""
    return written(experiment, tmp_path_factory.mktemp("page"))
