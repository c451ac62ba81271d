"""What a film costs each source of predictions or features, measured here, one after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from lucency.combining_keys import FROZEN, TEXTURE
from lucency.plan import originals
from lucency.progress import say
from lucency.receipt import discard_outdated, fingerprint_of, produce
from lucency.run import classifiers, prepared
from lucency.workspace import Run

FEW, MANY = 8, 72
Work = Callable[[Int64[np.ndarray, " m"]], object]


@cache
def costs(run: Run) -> dict[str, float]:
    """Return the milliseconds that a prepared film takes each network, frozen ones and textures.

    The time for MANY films less that for FEW, so that setting up is left out, after a round that is
    not measured; reading the cache is in it, preparation is not.
    """
    choices = run.protocol.combining
    inputs: dict[str, object] = {n: fingerprint_of(p) for n, p in classifiers(run).items()}
    inputs["sources"] = choices.model_dump(include={"sources", "frozen"})

    def write(folder: Path) -> None:
        say("Measuring what a film costs")
        films = len(prepared(run).manifest)
        few, many = (np.arange(min(count, films)) for count in (FEW, MANY))
        taken = {}
        for name, work in _works(run).items():
            work(few)  # unmeasured: the first films take as long as setting up
            short, long = _seconds(work, few), _seconds(work, many)
            taken[name] = 1000 * max(0.0, long - short) / max(1, len(many) - len(few))
        (folder / "milliseconds.json").write_text(json.dumps(taken))

    discard_outdated(run.out / "combined" / "costs", inputs=inputs)
    folder = produce(run.out / "combined" / "costs", inputs=inputs, write=write)
    return json.loads((folder / "milliseconds.json").read_text())


def _seconds(work: Work, rows: Int64[np.ndarray, " m"]) -> float:
    started = time.perf_counter()
    work(rows)
    return time.perf_counter() - started


def _works(run: Run) -> dict[str, Work]:
    from lucency.learn.embed import embed
    from lucency.learn.predict import predict
    from lucency.learn.zoo import load_classifier

    films, choices = prepared(run), run.protocol.combining
    everything = originals(films.manifest.label)
    works: dict[str, Work] = {}
    for name, place in classifiers(run).items():
        classifier = load_classifier(place)
        works[name] = lambda rows, it=classifier: predict(
            it, prepared=films, plan=everything.take(rows)
        )
    root = Path(run.protocol.data.root)
    for choice in choices.frozen:
        works[FROZEN + choice.name] = lambda rows, it=choice: embed(
            films, rows=rows, choice=it, root=root
        )
    if TEXTURE in choices.single_sources:
        from lucency.combine.textures import texture_row

        works[TEXTURE] = lambda rows: [texture_row(films.pixels[row]) for row in rows]
    return works
