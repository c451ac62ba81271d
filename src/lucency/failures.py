"""What could not be made of a report: named, kept with its traceback, and no reason to stop.

A report stands at the end of hours of work. A chapter that fails, for whatever reason, is left out
of it by name; what leads to the report (films, networks, predictions, evaluation) is not excused.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lucency.progress import say
from lucency.receipt import BusyError, write_atomically

Made = TypeVar("Made")


@dataclass(frozen=True)
class Failures:
    """The chapters that failed, one text file each in `folder`: the reason, then the traceback."""

    folder: Path

    def attempt(self, chapter: str, make: Callable[[], Made]) -> Made | None:
        """Return what `make` makes, or None where it raises; Ctrl-C and BusyError go through."""
        try:
            return make()
        except BusyError:
            raise
        except Exception as error:  # noqa: BLE001 - no error of a chapter may cost the report
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f"{chapter}.txt"
            write_atomically(file, f"{reason}\n\n{traceback.format_exc()}")
            say(f"The chapter {chapter!r} could not be made ({reason}); see {file}")
            return None

    def reasons(self) -> dict[str, str]:
        """Return chapter -> reason, of all that failed since the last `clear`."""
        files = sorted(self.folder.glob("*.txt")) if self.folder.is_dir() else []
        return {file.stem: file.read_text(encoding="utf-8").splitlines()[0] for file in files}

    def clear(self) -> None:
        """Forget all failures, before everything is tried anew."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
