"""Which sources hold films or patients of one another, and of which collection they are.

From the facts of the publishers: RSNA's and SIIM's challenges and NIH-CXR-LT relabel films of
ChestX-ray14; CXR-LT 2023 and 2024 relabel MIMIC-CXR; CheXpert Plus is CheXpert with reports.
"""

from __future__ import annotations

from pathlib import Path

from lucency.config.sections import Source
from lucency.core.stores import resolved_place

COLLECTION_OF = {  # whose films and patients they are: the collection that was published first
    "nih": "ChestX-ray14",
    "rsna": "ChestX-ray14",
    "siim": "ChestX-ray14",
    "nih-lt": "ChestX-ray14",
    "chexpert": "CheXpert",
    "chexpert-plus": "CheXpert",
    "mimic-cxr": "MIMIC-CXR",
    "cxr-lt": "MIMIC-CXR",
    "brax": "BRAX",
    "padchest": "PadChest",
    "vindr-cxr": "VinDr-CXR",
    "openi": "OpenI",
}


def share_films(one: str, other: str) -> bool:
    """Return whether films or patients of one source are also in the other, by their names.

    A source shares all with itself. Of tables, archives and phantoms a name says nothing.

    >>> share_films("nih", "rsna"), share_films("siim", "rsna"), share_films("nih", "chexpert")
    (True, True, False)
    """
    return one in COLLECTION_OF and COLLECTION_OF[one] == COLLECTION_OF.get(other)


def overlap(one: Source, other: Source) -> str:
    """Return why films or patients of one source are also in the other; "" where none are known.

    Two sources of one collection, phantoms of one hospital from one seed, one label file, and one
    archive, whichever tables label its films.
    """
    if share_films(one.source, other.source):
        collection = COLLECTION_OF[one.source]
        if one.source == other.source:
            return f"both are {collection}"
        return f"{one.source!r} and {other.source!r} are both films of {collection}"
    if one.source != other.source:
        return ""
    if one.root and _place(one) == _place(other):
        return f"both are {_place(one)}"
    drawn = one.source == "phantom" and not one.root and not other.root
    if drawn and (one.hospital, one.seed) == (other.hospital, other.seed):
        return f"both are phantoms of hospital {one.hospital} from seed {one.seed}"
    return ""


def _place(source: Source) -> str:
    """Return the archive of a source, or the table of another."""
    root = Path(source.root)
    return resolved_place(str(root if source.source == "dicom" else root / source.labels))
