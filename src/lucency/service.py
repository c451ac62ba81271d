"""What the commands answer: a stage done, in words or JSON; films on disk predicted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lucency import ablation
from lucency.balance_answers import Answer, answer_of, keep, refuse_variants
from lucency.failures import Failures
from lucency.judge.complaints import count_serious
from lucency.judge.evaluate import MACRO
from lucency.judge.pointing import GAME
from lucency.judge.rivals import conclude_sight
from lucency.judge.sight import Sight
from lucency.judgement import STAGES
from lucency.values import PARTS
from lucency.workspace import Run

NOT_MADE = "not made"


def do_stage(run: Run, stage: str) -> Answer:
    """Do `stage` and all before it, and return what there is to say about it."""
    if run.protocol.variant:
        return VARIED[stage](run, ablation.STAGES[stage](run))
    return ANSWERS[stage](run, STAGES[stage](run))


def balance_run(run: Run, *, figure: Path | None, table: Path | None) -> Answer:
    """Do the stage `balance`, and draw and write what it did where that is asked for."""
    asked = figure is not None or table is not None
    if asked:
        refuse_variants(run.protocol, remedy="leave out --figure and --table")
    answer = do_stage(run, "balance")
    if asked:
        from lucency.run import change

        keep(change(run), figure=figure, table=table)
    return answer


def in_words(answer: Answer) -> str:
    """Return an answer for people, one line an item."""
    return "".join(f"{key}: {_words(value)}\n" for key, value in answer.items())


def in_json(answer: Answer) -> str:
    """Return an answer for programs."""
    return json.dumps(answer, indent=1) + "\n"


def _words(value: object) -> str:
    if isinstance(value, dict):
        apart = "\n  " if any(isinstance(item, dict) for item in value.values()) else ", "
        lines = [f"{key} {_words(item)}" for key, item in value.items()]
        return (apart if apart != ", " else "") + apart.join(lines)
    if isinstance(value, list):
        return "".join(f"\n  {_words(item)}" for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, float):
        return "not computable" if value is None else f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _of_prepare(run: Run, made: Any) -> Answer:
    counts = {"films": len(made.manifest), "rejected": len(made.rejected)}
    return {**counts, "folder": str(run.out / "prepared")}


def _of_split(run: Run, made: Any) -> Answer:
    from lucency.run import split_name

    parts = {part: int((made == part).sum()) for part in PARTS}
    return {"films": parts, "fingerprint": split_name(run)}


def _of_balance(run: Run, made: Any) -> Answer:
    from lucency.run import change

    found = answer_of(change(run), plan=made, protocol=run.protocol)
    return {**found, "folder": str(run.out / "plan")}


def _of_train(run: Run, made: Any) -> Answer:
    del run
    return {name: str(folder) for name, folder in made.items()}


def _of_predict(run: Run, made: Any) -> Answer:
    return {p.network: str(run.out / "predictions" / p.network) for p in made}


def _of_evaluate(run: Run, made: Any) -> Answer:
    ranking = made.ranking.set_index("network")["value"].round(4).to_dict()
    return {
        "macro AUC": ranking,
        "conclusion": made.conclusion,
        "tables": str(run.out / "evaluation"),
    }


def _of_report(run: Run, made: Any) -> Answer:
    from lucency.judgement import complaints, verdict

    told = "could not run"
    if "warnings" not in Failures(run.out / "failed").reasons():
        found = complaints(run)
        serious = count_serious(found)
        told = f"{serious} serious, {len(found) - serious} to note"
    answer: Answer = {
        "conclusion": verdict(run).conclusion,
        "leak doctor": told,
        "report": str(made),
    }
    missing = Failures(run.out / "failed").reasons()
    return {**answer, NOT_MADE: missing} if missing else answer


def _of_check(run: Run, made: Any) -> Answer:
    serious = count_serious(made)
    return {"serious": serious, "notes": len(made) - serious, "folder": str(run.out / "check")}


def localised(sight: Sight, folder: Path) -> Answer:
    """Return what to say of where a network looked; ValueError where nothing was scored."""
    if not len(sight.scores.pointing):
        raise ValueError(f"nothing could be localised: {'; '.join(sight.remarks)}")
    pointing = sight.scores.pointing
    macro = pointing.loc[(pointing["finding"] == MACRO) & (pointing["measure"] == GAME)]
    hits = {
        row["method"]: f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        for row in macro.to_dict("records")
    }
    return {
        "network": sight.network,
        "pointing game": hits,
        "conclusion": conclude_sight(sight.scores.rivals, boxes=sight.boxes),
        "remarks": list(sight.remarks),
        "tables": str(folder),
    }


def _of_plans(run: Run, made: Any) -> Answer:
    del run
    return {name: f"{int((plan.part == 'train').sum()):,} entries" for name, plan in made.items()}


def _of_variants(run: Run, made: Any) -> Answer:
    del made
    return {name: str(run.out / "variants" / name) for name, _ in ablation.members(run)}


def _of_comparison(run: Run, made: Any) -> Answer:
    del made
    conclusion = (run.out / "evaluation" / "conclusion.txt").read_text().strip()
    return {"conclusion": conclusion, "tables": str(run.out / "evaluation")}


def _of_ablation(run: Run, made: Any) -> Answer:
    return {**_of_comparison(run, made), "report": str(made)}


ANSWERS: dict[str, Callable[[Run, Any], Answer]] = {
    "prepare": _of_prepare,
    "split": _of_split,
    "balance": _of_balance,
    "train": _of_train,
    "predict": _of_predict,
    "evaluate": _of_evaluate,
    "check": _of_check,
    "report": _of_report,
}
VARIED: dict[str, Callable[[Run, Any], Answer]] = {
    "prepare": _of_prepare,
    "split": _of_split,
    "balance": _of_plans,
    "train": _of_train,
    "predict": _of_variants,
    "evaluate": _of_comparison,
    "check": _of_check,
    "report": _of_ablation,
}
