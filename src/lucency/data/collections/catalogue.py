"""COLLECTIONS: every public collection by the name that `data.source` calls it."""

from __future__ import annotations

from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.nih_films import NIH_LT, RSNA, SIIM
from lucency.data.collections.openi import OPENI
from lucency.data.collections.padchest import PADCHEST
from lucency.data.collections.vindr import VINDR

COLLECTIONS: dict[str, PublicCollection] = {
    "padchest": PADCHEST,
    "vindr-cxr": VINDR,
    "openi": OPENI,
    "rsna": RSNA,
    "siim": SIIM,
    "nih-lt": NIH_LT,
}
