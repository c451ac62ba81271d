"""What a public collection is to the readers: its layout, its names, and how they fit ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lucency.core.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class PublicCollection:
    """One public collection.

    `read(root, labels)` returns every film that its label files list, with its own findings and no
    picture opened; `labels` names the label file below `root`, "" the usual one. It raises
    ValueError for a root that is not this collection's. Every path is "", every image is the path
    of the film below `root`, or its end, as `core.tables.match_films` joins them. Facts are named
    age (years), sex (M, F), view (in capitals, "" unknown), study, device, date (YYYYMMDD) and
    split (train, val, test: the official one), where the collection has them.
    `align` maps own names to findings of ChestX-ray14 where they are spelt otherwise; own names
    that are findings are mapped to themselves. A finding may have several own names, an own name
    several findings, or none ("").
    `no_finding` is the own name of No Finding, `beside_no_finding` what may stand beside it.
    `tables` are patterns, below `root`, of the label files that the films are made of, and
    `deeper(root, labels)` returns those that `read` finds beside others, in folders further below.
    `published` counts what the authors or the community count: "films", "patients", "studies" and
    positives by own name. `traps` are sentences on what misleads; a model card shows them.
    """

    title: str
    read: Callable[[Path, str], Manifest]
    findings: tuple[str, ...]
    align: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    no_finding: str = ""
    beside_no_finding: tuple[str, ...] = ()
    tables: tuple[str, ...]
    deeper: Callable[[Path, str], Iterable[Path]] = lambda root, labels: ()
    published: Mapping[str, int] = field(default_factory=dict)
    traps: tuple[str, ...] = ()

    def files(self, root: Path, labels: str) -> set[Path]:
        """Return the label files below `root` that `read` may open; a file `labels` is apart."""
        fitting = {file for pattern in self.tables for file in root.glob(pattern)}
        return {file for file in {*fitting, *self.deeper(root, labels)} if file.is_file()}
