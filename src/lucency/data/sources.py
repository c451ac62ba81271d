"""Where films come from: SOURCES names the readers, each from a protocol's `data` to a Manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lucency.data.nih import read_nih
from lucency.data.table import read_csv_table
from lucency.protocol import Source
from lucency.values import Manifest


def _read_nih(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    return read_nih(Path(source.root), labels=source.labels, findings=findings)


def _read_csv(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    return read_csv_table(
        Path(source.root),
        labels=source.labels,
        findings=findings,
        image_column=source.image_column,
        patient_column=source.patient_column,
    )


def _read_phantom(source: Source, *, findings: tuple[str, ...]) -> Manifest:
    """Read a phantom that `write_phantom` has written to the source's root."""
    return read_nih(Path(source.root), findings=findings)


SOURCES: dict[str, Callable[..., Manifest]] = {
    "nih": _read_nih,
    "csv": _read_csv,
    "phantom": _read_phantom,
}
