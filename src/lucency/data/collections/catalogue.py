"""COLLECTIONS: every public collection by the name that `data.source` calls it."""

from __future__ import annotations

from lucency.data.collections.brax import BRAX
from lucency.data.collections.chexpert import CHEXPERT
from lucency.data.collections.chexpert_plus import CHEXPERT_PLUS
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.cxr_lt import CXR_LT
from lucency.data.collections.mimic import MIMIC_CXR
from lucency.data.collections.nih_films import NIH_LT, RSNA, SIIM
from lucency.data.collections.openi import OPENI
from lucency.data.collections.padchest import PADCHEST
from lucency.data.collections.vindr import VINDR

COLLECTIONS: dict[str, PublicCollection] = {
    "chexpert": CHEXPERT,
    "chexpert-plus": CHEXPERT_PLUS,
    "mimic-cxr": MIMIC_CXR,
    "cxr-lt": CXR_LT,
    "brax": BRAX,
    "padchest": PADCHEST,
    "vindr-cxr": VINDR,
    "openi": OPENI,
    "rsna": RSNA,
    "siim": SIIM,
    "nih-lt": NIH_LT,
}
