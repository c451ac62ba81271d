"""How OpenMP's threads wait: stated once, before torch is there, unless the environment does."""

import os

import pytest

from lucency.core.parallel import SPINS, share_cores


@pytest.mark.parametrize("stated", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_environment_states_is_kept(
    monkeypatch: pytest.MonkeyPatch, stated: dict[str, str]
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    share_cores()
    expected = stated or {"GOMP_SPINCOUNT": str(SPINS)}
    assert {name: os.environ[name] for name in os.environ if name in {*expected}} == expected
    assert ("GOMP_SPINCOUNT" in os.environ) == ("OMP_WAIT_POLICY" not in os.environ)
