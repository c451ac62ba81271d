"""The balanced data set as films on disk, in NIH's layout, for those who train elsewhere.

Letters in shapes: n films, m entries of a plan.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Shaped

from lucency.core.files import write_part, write_table, write_whole
from lucency.core.manifest import NO_FINDING, Prepared
from lucency.core.plan import Plan
from lucency.core.progress import progress
from lucency.core.stage import produce_answer
from lucency.data.film_names import SUFFIXES
from lucency.data.labels import LABEL_FILES, OFFICIAL_LISTS
from lucency.pipeline.run import Run
from lucency.pipeline.stages import pictures, plan, prepared

FACTS = {
    "age": "Patient Age", "sex": "Patient Gender", "view": "View Position",
    "width": "OriginalImage[Width", "height": "Height]",
}  # fmt: skip


def write_balanced(run: Run, *, out: Path) -> Path:
    """Return `out`, which holds every entry of the plan as a film, and NIH's tables of them.

    images/*.png are the prepared pixels, copies and mixes done; the label file has a column more,
    Lineage: empty for an original, else the film and its transform, or both parents and their
    shares. An entry without findings is written "No Finding". train_val_list.txt, test_list.txt
    and part.csv hold the parts; weights.csv the weights of the loss, one column a finding.
    Raises ValueError where a label is not stated, or neither a finding nor the output "No Finding"
    is, which NIH's layout cannot say, and as `produce_answer` does.
    """
    if run.protocol.variant:
        raise ValueError("a protocol with variants has a plan for each: write one without them")
    seen, films = plan(run), prepared(run)
    if np.isnan(seen.label).any():
        raise ValueError(
            f"{int(np.isnan(seen.label).sum())} labels are not stated, which NIH's layout cannot "
            "say: expected 0 or 1; leave those films or findings out of the label file"
        )
    given = [Path(one.root) for one in run.protocol.data.every if one.source != "phantom"]
    if any(out.resolve().is_relative_to(root.resolve()) for root in given):
        raise ValueError(f"{out} lies below data.root, where films are looked for: choose another")
    findings = films.manifest.findings
    if NO_FINDING in findings and (unlabelled := int((seen.label != 1).all(axis=1).sum())):
        raise ValueError(
            f"{unlabelled} entries carry neither a finding nor {NO_FINDING}, which NIH's layout "
            f"cannot say: leave {NO_FINDING} out of `findings`, or choose another balance.method"
        )
    inputs = run.fingerprints("plan", "prepared")
    write = partial(_write_balanced, run, seen, films)
    return produce_answer(out, inputs=inputs, write=write)


def _write_balanced(run: Run, seen: Plan, films: Prepared, folder: Path) -> None:
    tested, name = seen.part == "test", file_names(seen, films.manifest.image)
    _write_pictures(run, seen, name, folder / "images")
    write_table(_entries(films, seen, name), folder / LABEL_FILES[0])
    table = pd.DataFrame({"image": name, "part": seen.part})
    write_table(table, folder / "part.csv")
    weight = pd.DataFrame(seen.weight, columns=list(films.manifest.findings))
    write_table(pd.concat([table["image"], weight], axis=1), folder / "weights.csv")
    for file, mine in zip(OFFICIAL_LISTS, (~tested, tested), strict=True):
        write_whole(folder / file, "\n".join(name[mine]) + "\n")


def file_names(seen: Plan, image: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " m"]:
    """Return a file name for every entry: its film's, and for a copy with its number.

    Where two entries would share a name, both get the row of their film as well; all do where that
    is a third one's name.
    """
    pairs = zip(image[seen.row].tolist(), seen.copy.tolist(), strict=True)
    stem = pd.Series([f"{_stem(name)}{f'-{copy}' if copy else ''}" for name, copy in pairs])
    row = pd.Series(seen.row).astype(str)
    apart = stem.where(~stem.duplicated(keep=False), stem + "~" + row)
    apart = stem + "~" + row if apart.duplicated().any() else apart
    return (apart + ".png").to_numpy(dtype=str)


def _stem(image: str) -> str:
    """Return a film's name without its suffix, folders joined to it."""
    suffix = next((end for end in SUFFIXES if image.lower().endswith(end)), "")
    return image[: len(image) - len(suffix)].replace("/", "-")


def _write_pictures(run: Run, seen: Plan, name: Shaped[np.ndarray, " m"], folder: Path) -> None:
    from lucency.models.film_loader import Films

    folder.mkdir(exist_ok=True)
    films = Films(prepared=pictures(run), plan=seen, copies=run.protocol.balance.seed)
    with progress("Writing films", unit="films") as advance:
        for entry, file in enumerate(name.tolist()):
            done, png = cv2.imencode(".png", films.picture(entry))
            assert done, "a grey picture can be encoded"
            write_part(folder / file, png.tobytes())
            advance(entry + 1, len(name))


def _entries(films: Prepared, seen: Plan, name: Shaped[np.ndarray, " m"]) -> pd.DataFrame:
    manifest = films.manifest
    outputs = [finding for finding in manifest.findings if finding != NO_FINDING]
    carried = seen.label[:, [manifest.findings.index(finding) for finding in outputs]] == 1
    facts = manifest.facts.iloc[seen.row].reset_index(drop=True)
    if "age" in facts:
        facts["age"] = facts["age"].round().astype("Int64")
    table = {
        "Image Index": name,
        "Finding Labels": ["|".join(np.array(outputs)[row]) or NO_FINDING for row in carried],
        "Follow-up #": facts.get("follow_up", pd.Series(0, index=facts.index)),
        "Patient ID": manifest.patient_id[seen.row],
    }
    table |= {title: facts[fact] for fact, title in FACTS.items() if fact in facts}
    return pd.DataFrame({**table, "Lineage": _lineage(seen, manifest.image)})


def _lineage(seen: Plan, image: Shaped[np.ndarray, " n"]) -> list[str]:
    """Return where each entry comes from: nothing, a film and its transform, or two and shares."""
    lines = []
    for row, mate, mix, transform in zip(
        image[seen.row], image[seen.mate], seen.mix, seen.transform, strict=True
    ):
        mixed = f"{1 - mix:.4f} {row} + {mix:.4f} {mate}" if mix else str(row)
        lines.append(f"{mixed} {transform}" if transform else "")
    return lines
