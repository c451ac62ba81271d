"""Foundation models of chest films: what their published weights expect and have seen; no torch.

FOUNDATIONS holds one record for each layout of published files (`match` of a protocol's network).
CLASSIFIERS are weights of others that are known by their names, wherever a provenance names them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lucency.config.sections import Network
from lucency.data.collections.overlaps import COLLECTION_OF

What = Literal["", "none", "images", "labels"]
NIH = COLLECTION_OF["nih"]
SPELLINGS = {  # of collections, in a provenance
    NIH: r"chest ?x-?ray-?(?:14|8)\b|\bnih\b", "CheXpert": r"chexpert", "MIMIC-CXR": r"mimic",
    "BRAX": r"\bbrax\b", "PadChest": r"padchest", "VinDr-CXR": r"\bvin-?dr|vinbig",
    "OpenI": r"\bopen-?i\b|indiana univ",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """One published model: scaling of grey from 0 to 1, side in pixels, films it has seen.

    Training was self-supervised, on images without labels.
    """

    title: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    collections: tuple[str, ...]

    @property
    def provenance(self) -> str:
        """What the weights have been shown, in a sentence."""
        return f"{self.title}: images without labels of {', '.join(self.collections)}"


def seen_by(choice: Network, *, source: str) -> What:
    """Return what of the films of `source` the network's weights have seen; "" is unknown.

    What the protocol states stands; else published weights have seen their collections. Of a
    table's films it is unknown, and no phantom has been published.
    """
    known = collections_seen(choice)
    if choice.seen or not known:
        return choice.seen
    if source == "phantom":
        return "none"
    return known.get(COLLECTION_OF[source], "none") if source in COLLECTION_OF else ""


def collections_seen(choice: Network) -> dict[str, What]:
    """Return the collections that published weights have seen, and what of them; {} of others.

    Weights are published that `match` names, or the provenance: CLASSIFIERS.
    """
    if published := FOUNDATIONS.get(choice.match):
        return dict.fromkeys(published.collections, "images")
    named = [one for name, one in CLASSIFIERS.items() if _names(choice.provenance, name)]
    return dict.fromkeys((collection for one in named for collection in one), "labels")


def collections_named(provenance: str) -> set[str]:
    """Return the collections that a provenance names, in whichever way.

    >>> sorted(collections_named("a DenseNet of MIMIC and the NIH's films"))
    ['ChestX-ray14', 'MIMIC-CXR']
    """
    return {name for name, spelling in SPELLINGS.items() if re.search(spelling, provenance, re.I)}


def _names(provenance: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?![\w-])", provenance, re.IGNORECASE) is not None


FOUNDATIONS: dict[str, Foundation] = {
    # Yao et al. 2024, arXiv 2405.05237; scaling: classification/utils/datasets.py of hustvl/EVA-X.
    "eva-x": Foundation(
        title="EVA-X (Yao et al. 2024)",
        mean=(0.49185243,) * 3,
        std=(0.28509309,) * 3,
        size=224,
        collections=(NIH, "CheXpert", "MIMIC-CXR"),
    ),
    # Pérez-García et al. 2024, arXiv 2401.10815; card and preprocessor_config.json of the hub.
    "rad-dino": Foundation(
        title="RAD-DINO (Pérez-García et al. 2024)",
        mean=(0.5307,) * 3,
        std=(0.2583,) * 3,
        size=518,
        collections=("BRAX", "CheXpert", "MIMIC-CXR", NIH, "PadChest"),
    ),
}
# The names, and what their description states, are in models.py of torchxrayvision 1.5.7; RSNA's
# and SIIM's films and Google's labels are of ChestX-ray14.
CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "densenet121-res224-all": (NIH, "PadChest", "CheXpert", "MIMIC-CXR", "OpenI"),
    "densenet121-res224-nih": (NIH,),
    "densenet121-res224-pc": ("PadChest",),
    "densenet121-res224-chex": ("CheXpert",),
    "densenet121-res224-rsna": (NIH,),
    "densenet121-res224-mimic_nb": ("MIMIC-CXR",),
    "densenet121-res224-mimic_ch": ("MIMIC-CXR",),
    "resnet50-res512-all": ("PadChest", NIH, "VinDr-CXR"),
}
