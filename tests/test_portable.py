"""The package works where a system has no fcntl, resource, pwd or grp, and starts by spawning.

Windows is like that. It stands in for it that these modules cannot be imported.
"""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lucency

ABSENT = ("fcntl", "resource", "pwd", "grp")
HIDE = f"""
import os, sys, warnings

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in {ABSENT}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
"""
PROTOCOL = """
name = "tiny"
[data]
films = 40
size = 64
[preparation]
size = 32
[training]
epochs = 1
batch = 16
[evaluation]
resamples = 20
[explanation]
methods = []
[[network]]
name = "test_resnet"
"""


def started(tmp_path: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program file in a Python that lacks the modules, as its worker processes do."""
    (tmp_path / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    source = str(Path(lucency.__file__).parents[1])
    path = os.pathsep.join([str(tmp_path), source])
    words = [sys.executable, "program.py"]
    return subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def every_module() -> list[str]:
    found = pkgutil.walk_packages(lucency.__path__, "lucency.")
    return [one.name for one in found if one.name != "lucency.__main__"]


def test_every_module_is_known():
    assert "lucency.core.stage" in every_module()
    assert len(every_module()) > 100


@pytest.mark.slow
def test_every_module_is_imported_without_what_only_posix_has(tmp_path: Path):
    lines = "\n".join(f"import {name}" for name in every_module())
    done = started(tmp_path, f"{lines}\nimport sys\nprint({ABSENT[0]!r} in sys.modules)")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_what_is_hidden_cannot_be_imported(tmp_path: Path):
    done = started(tmp_path, "import fcntl")
    assert done.returncode == 1
    assert "No module named 'fcntl'" in done.stderr


@pytest.mark.slow
def test_a_run_is_made_by_spawned_workers_without_what_only_posix_has(tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(PROTOCOL, encoding="utf-8")
    program = """
import multiprocessing, sys
from lucency.cli.app import main
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.argv[1:] = ["run", "tiny.toml", "--out", "run", "--workers", "2"]
    main()
"""
    done = started(tmp_path, program)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report" / "report.html").is_file()
    assert not [*tmp_path.rglob("*.lock")]
