"""Which methods of balancing there are, and which keys of a protocol each one reads."""

from __future__ import annotations

from typing import Literal

Method = Literal[
    "none", "cap-and-copy", "partial", "positive-weights", "weighted-sampler", "lp-rus", "lp-ros",
    "ml-rus", "ml-ros", "remedial", "mlsmote", "mlsol", "mlul", "mlenn", "mltl",
]  # fmt: skip
UNDERSAMPLERS = {"lp-rus", "ml-rus", "mlul"}
MIXING = {"mlsmote", "mlsol"}
BALANCE_KEYS: dict[str, tuple[str, ...]] = {
    "none": (),
    "cap-and-copy": ("before_split", "cap", "copy_plan", "cap_after", "copies_at"),
    "partial": ("ratio", "positive_weight"),
    "positive-weights": (),
    "weighted-sampler": ("copies",),
    "lp-rus": ("percent",),
    "lp-ros": ("percent", "copies"),
    "ml-rus": ("percent",),
    "ml-ros": ("percent", "copies"),
    "remedial": ("copies",),
    "mlsmote": ("neighbours", "labels", "features"),
    "mlsol": ("percent", "neighbours", "features"),
    "mlul": ("percent", "neighbours", "features"),
    "mlenn": ("neighbours", "features"),
    "mltl": ("features",),
}
