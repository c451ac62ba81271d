"""A sample of what `make torture` tries with faults, kills and shortages, and the layer itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lucency
from torture import try_faults, try_kills, try_places, try_together
from torture.fault_layer import why_absent, with_layer

RIGHT = {*try_faults.RIGHT, try_kills.RIGHT, *try_places.RIGHT, *try_together.RIGHT}
FAILS = """
import ctypes, os, sys
layer = ctypes.CDLL(None)
layer.faults_arm(sys.argv[1].encode(), 127, ctypes.c_long(3), 5, 0, -1)
for step in (lambda: os.mkdir("a"), lambda: open("a/b", "w").close(), lambda: os.link("a/b", "c"),
             lambda: os.rename("a/b", "d")):
    try:
        step()
    except OSError as error:
        print(error.errno, error.filename)
print(layer.faults_count(), sorted(os.listdir()))
"""


def run_layered(place: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the fault layer, or skip with the reason why there can be none."""
    if reason := why_absent():
        pytest.skip(reason)
    home = place / "layer"
    home.mkdir()
    source = os.pathsep.join(
        [str(Path(lucency.__file__).parents[1]), str(Path(__file__).parents[1])]
    )
    return subprocess.run(
        [sys.executable, *map(str, words)], env={**with_layer(home), "PYTHONPATH": source},
        cwd=place, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_layer_lets_one_call_fail_and_counts_those_below_its_root(tmp_path: Path):
    (tmp_path / "root").mkdir()
    words = ("-c", f"import os; os.chdir('root')\n{FAILS}", tmp_path / "root")
    done = run_layered(tmp_path, *words)
    assert done.stdout.splitlines() == ["5 a/b", "4 ['a', 'd']"], done.stderr


def test_a_few_faults_kills_and_shortages(tmp_path: Path):
    done = run_layered(tmp_path, "-m", "torture.few_faults", tmp_path)
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()
    assert len(found) >= 20
    assert not [one for one in found if one not in RIGHT]
