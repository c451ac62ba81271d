"""The two hospitals of phantoms: what differs between their films, patients and labels.

Hospital 1 is ChestX-ray14's: its frequencies of findings and views, its original film sizes. The
second is invented, so that a network trained on one can be tested where films are others. Signs of
findings are drawn alike in both: what differs is the room, the machine and who is sent there.

| | hospital 1 | hospital 2 |
|---|---|---|
| patients' numbers | from 1 | from 50,000,001: other people at the same seed |
| AP films | 40 % | 63 %: 2.5 times as likely as beside the same findings in hospital 1 |
| label sets | ChestX-ray14's | times 2.5 for Cardiomegaly and Pneumonia, 1.5 for Edema, 1.3 for \
Effusion, 0.5 for Mass, Nodule, Pneumothorax, Emphysema and Fibrosis, 0.4 for Infiltration |
| dose | PA 0.7 to 1.3, AP 0.3 to 0.7 | times 0.35, so noise is 1.7 times as strong |
| scatter | PA 0.2 to 0.35, AP 0.35 to 0.6 | 0.1 more |
| displayed mid-grey | at 2.35 (PA), 2.25 (AP) | at 0.35 more, so films are darker |
| contrast | PA 65 to 100, AP 55 to 85 | times 0.7 |
| blur | 0.07 cm | 0.1 cm |
| originals | five, sides of 34 to 43 cm | four others, 35.2 by 42.8 cm or 43 by 43 cm |
| side marker | L at the film's upper right | R at its lower left |
| marker of AP films (`shortcut`) | AP at the upper left | SUPINE at the upper right |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Original = tuple[int, int, str, float]  # columns, rows, mm a pixel, share of the view's films


@dataclass(frozen=True, kw_only=True)
class Marker:
    """Lead letters; places are shares of the film's width and height, `down` between two."""

    text: str
    across: float
    down: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """What one hospital does to films and whom it sees; numbers are relative to hospital 1.

    `before` is the number before its first patient's. A label set is as likely as in hospital 1
    times `odds` of each of its findings, and times `ap` on an AP film.
    """

    before: int = 0
    ap: float = 1.0
    odds: Mapping[str, float] = field(default_factory=dict)
    dose: float = 1.0  # times hospital 1's
    scatter: float = 0.0  # added, as a share of the mean primary exposure
    centre: float = 0.0  # added, in units of optical path
    contrast: float = 1.0  # times hospital 1's
    blur: float = 0.07  # cm
    formats: Mapping[str, tuple[Original, ...]]
    side: Marker
    view: Marker


HOSPITALS = {
    1: Hospital(
        formats={
            "PA": (
                (2992, 2991, "0.143", 0.6),
                (2500, 2048, "0.168", 0.25),
                (2048, 2500, "0.171", 0.15),
            ),
            "AP": ((2500, 2048, "0.168", 0.65), (3056, 2544, "0.139", 0.35)),
        },
        side=Marker(text="L", across=0.93, down=(0.05, 0.12)),
        view=Marker(text="AP", across=0.08, down=(0.10, 0.10)),
    ),
    2: Hospital(
        before=50_000_000,
        ap=2.5,
        odds={
            **dict.fromkeys(("Cardiomegaly", "Pneumonia"), 2.5),
            "Edema": 1.5,
            "Effusion": 1.3,
            **dict.fromkeys(("Mass", "Nodule", "Pneumothorax", "Emphysema", "Fibrosis"), 0.5),
            "Infiltration": 0.4,
        },
        dose=0.35,
        scatter=0.1,
        centre=0.35,
        contrast=0.7,
        blur=0.1,
        formats={
            "PA": ((3520, 4280, "0.1", 0.7), (2150, 2150, "0.2", 0.3)),
            "AP": ((2140, 1760, "0.2", 0.8), (1760, 2140, "0.2", 0.2)),
        },
        side=Marker(text="R", across=0.03, down=(0.90, 0.97)),
        view=Marker(text="SUPINE", across=0.70, down=(0.06, 0.06)),
    ),
}
