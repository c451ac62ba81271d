"""The old place of `choose_cases`, to be removed once its importers have moved."""

from lucency.explain.heatmap_results import KINDS as KINDS
from lucency.explain.heatmap_results import choose_cases as choose_cases
