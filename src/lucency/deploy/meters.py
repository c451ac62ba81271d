"""Metrics of the service, in Prometheus' text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
ABOUT = {  # name -> what is counted
    "lucency_requests_total": "Requests answered, by route, method and status.",
    "lucency_films_total": "Films received, by outcome: decoded, or the code of a refusal.",
    "lucency_request_seconds": "Time from a request's headers to its answer, by route.",
    "lucency_batch_films": "Films that went through the network together.",
    "lucency_films_waiting": "Films that are not answered yet.",
}
Labels = tuple[tuple[str, str], ...]


@dataclass
class Histogram:
    """Counts of values by the upper bounds of their buckets, the last without one."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0


@dataclass
class Meters:
    """What the service has counted since it started."""

    counters: dict[str, Counter[Labels]] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, Histogram]] = field(default_factory=dict)


def count(meters: Meters, name: str, **labels: str) -> None:
    """Add one to a counter."""
    meters.counters.setdefault(name, Counter())[tuple(labels.items())] += 1


def measure(
    meters: Meters, name: str, value: float, *, bounds: tuple[float, ...], **labels: str
) -> None:
    """Add a value to a histogram."""
    several = meters.histograms.setdefault(name, {})
    made = Histogram(bounds, [0] * (len(bounds) + 1))
    one = several.setdefault(tuple(labels.items()), made)
    one.counts[bisect_left(bounds, value)] += 1
    one.total += value


def exposition(meters: Meters, *, waiting: int) -> str:
    """Return all metrics as text."""
    lines = []
    for name, counter in meters.counters.items():
        lines += _head(name, "counter")
        lines += [f"{name}{_braced(labels)} {value}" for labels, value in counter.items()]
    for name, several in meters.histograms.items():
        lines += _head(name, "histogram")
        for labels, one in several.items():
            bounds = [*(f"{bound:g}" for bound in one.bounds), "+Inf"]
            for bound, below in zip(bounds, accumulate(one.counts), strict=True):
                lines.append(f"{name}_bucket{_braced((*labels, ('le', bound)))} {below}")
            lines.append(f"{name}_sum{_braced(labels)} {one.total:.6f}")
            lines.append(f"{name}_count{_braced(labels)} {sum(one.counts)}")
    lines += [*_head("lucency_films_waiting", "gauge"), f"lucency_films_waiting {waiting}"]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {ABOUT[name]}", f"# TYPE {name} {kind}"]


def _braced(labels: Labels) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in labels)
    return f"{{{pairs}}}" if pairs else ""
