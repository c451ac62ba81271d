"""The trials of a sweep: a journal that processes and machines share; none is lost, none doubled.

Optuna draws candidates by TPE (Bergstra et al., NIPS 2011) and keeps them in a journal, a file of
lines. A trial at work is a lock beside it, which the system releases when its process dies: then
the next process that looks for work does the same trial, with its number and its values. A trial
whose processes keep dying at the same epoch is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from filelock import BaseFileLock, FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from lucency.config.search_space import Span, Sweep, label_of
from lucency.core.progress import AfterEpoch, Figures, say

NAME, REASON = "sweep", "reason"
WAIT = 0.5  # seconds between two looks for work where others have it
DEATHS = 5  # of processes in one epoch of a trial, after which it is given up
STARTUP = 5  # finished trials before the first is pruned, Optuna's own


class FlockedJournal(JournalFileOpenLock):
    """The lock of a journal, which a kill releases at once; a line that a kill tore is cut off."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._flock = FileLock(journal.with_name(journal.name + ".lock"), poll_interval=0.01)

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._flock.acquire()
        _cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        """Let others write."""
        self._flock.release()


def _cut_torn_line(journal: Path) -> None:
    with journal.open("r+b") as stream:
        content = stream.read() if _ends_torn(stream) else b"\n"
        if not content.endswith(b"\n"):
            stream.truncate(content.rfind(b"\n") + 1)


def _ends_torn(stream: Any) -> bool:
    """Return whether the last byte ends no line; the stream stands at its beginning again."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 1))
    torn = size > 0 and stream.read(1) != b"\n"
    stream.seek(0)
    return torn


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """The trials in a folder. `epochs` are the most that one trains."""

    folder: Path
    sweep: Sweep
    epochs: int

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's study in the journal."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._looking():
            if not self._storage.get_all_studies():
                optuna.create_study(storage=self._storage, study_name=NAME, direction="maximize")
            pruner = PRUNERS[self.sweep.pruning](self.epochs)
            return optuna.load_study(storage=self._storage, study_name=NAME, pruner=pruner)

    @cached_property
    def _storage(self) -> optuna.storages.JournalStorage:
        file = self.folder / "journal.log"
        return optuna.storages.JournalStorage(
            JournalFileBackend(str(file), lock_obj=FlockedJournal(file))
        )

    def every(self) -> list[FrozenTrial]:
        """Return all trials as they are now, by their numbers."""
        return self.study.get_trials(deepcopy=False)

    def is_finished(self) -> bool:
        """Return whether there are all trials, and none is at work or waits for its process."""
        several = self.every()
        return len(several) >= self.sweep.trials and all(one.state.is_finished() for one in several)

    def each(self) -> Generator[tuple[Trial, dict[str, Any]], None, None]:
        """Yield trials that this process does, with their values, until all are finished.

        Where others have the last ones, it waits: they may die. A trial must be entered (`finish`)
        before the next is taken.
        """
        waiting = False
        while not self.is_finished():
            claimed = self.claim()
            if claimed is None:
                if not waiting:
                    say("Other processes have the last trials: waiting for them")
                waiting = True
                time.sleep(WAIT)
                continue
            trial, lock = claimed
            try:
                yield trial, self.candidate(trial)
            finally:
                lock.release()

    def claim(self) -> tuple[Trial, BaseFileLock] | None:
        """Return a trial and its lock: a dead process's, or a new one; None if none is left."""
        study = self.study  # which takes the same lock once
        with self._looking():
            for one in self.every():
                lock = None if one.state.is_finished() else self._held(one.number)
                if lock is None:
                    continue
                if self._is_left(one.number):
                    say(f"Trial {one.number} goes on: its process has ended")
                    return self._begun(one.number), lock
                lock.release()
            number = len(self.every())
            if number >= self.sweep.trials:
                return None
            lock = self._held(number)
            assert lock is not None, "nobody else creates a trial now"
            self._seed(number)
            trial = study.ask()
            assert trial.number == number
            self.candidate(trial)
            return trial, lock

    def _is_left(self, number: int) -> bool:
        """Return whether a trial, whose lock is held, is to be done; its last process has died.

        That is counted, and after DEATHS in one epoch the trial is given up.
        """
        one, name = self.every()[number], self._deaths(number)
        if one.state.is_finished():
            return False
        deaths, trial = one.user_attrs.get(name, 0) + 1, self._begun(number)
        trial.set_user_attr(name, deaths)
        if deaths < DEATHS:
            return True
        reason = f"given up: {deaths} processes ended in epoch {_epochs(one) + 1}, killed perhaps"
        self.finish(trial, None, reason=f"{reason}, or for lack of memory")
        say(f"Trial {number}: {reason}, or for lack of memory")
        return False

    def forgive(self, trial: Trial) -> None:
        """Count no death in the epoch where a trial is: what ended its process was not the trial.

        A finished trial stays as it is.
        """
        if not self.every()[trial.number].state.is_finished():
            trial.set_user_attr(self._deaths(trial.number), 0)

    def _deaths(self, number: int) -> str:
        """Return the attribute that counts a trial's deaths in the epoch where it is."""
        return f"deaths in epoch {_epochs(self.every()[number]) + 1}"

    def candidate(self, trial: Trial) -> dict[str, Any]:
        """Return a trial's values by keys; what is not drawn yet is drawn."""
        return {key: _draw(trial, key, values) for key, values in self.sweep.space.items()}

    def shown(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return the values of a trial of the journal by keys, those that are drawn."""
        space = {key: one for key, one in self.sweep.space.items() if key in trial.params}
        return {key: _value(trial.params[key], values) for key, values in space.items()}

    def watching(self, trial: Trial, *, epochs: int) -> AfterEpoch:
        """Return what reports the epochs of a trial, and raises TrialPruned where it is behind.

        After the last of its `epochs` a trial is finished, not pruned.
        """

        def watch(figures: Figures) -> None:
            known = self.every()[trial.number].intermediate_values
            for one in figures:
                if int(one["epoch"]) not in known:
                    trial.report(float(one["val_auc"]), int(one["epoch"]))
            if len(figures) < epochs and trial.should_prune():
                raise optuna.TrialPruned

        return watch

    def finish(self, trial: Trial, value: float | None, *, reason: str = "") -> None:
        """Enter a trial's macro AUC on validation films, or none where it was given up."""
        if reason:
            trial.set_user_attr(REASON, reason)
        state = TrialState.COMPLETE if value is not None else TrialState.PRUNED
        self.study.tell(trial.number, value, state=state)

    def best(self) -> FrozenTrial:
        """Return the finished trial with the highest value, the first of equal ones.

        Raises ValueError where every trial was given up.
        """
        whole = [one for one in self.every() if one.state == TrialState.COMPLETE]
        if not whole:
            raise ValueError(
                f"{self.folder}: none of {self.sweep.trials} trials was trained to its end: "
                "expected one; widen sweep.space, or set sweep.pruning to none"
            )
        return max(whole, key=lambda one: one.value or 0.0)

    def _begun(self, number: int) -> Trial:
        """Return a trial of the journal as one that goes on."""
        self._seed(number)
        study = self._storage.get_study_id_from_name(NAME)
        return Trial(
            self.study, self._storage.get_trial_id_from_study_id_trial_number(study, number)
        )

    def _seed(self, number: int) -> None:
        """Let a trial's values depend on its number and the trials before, on no process."""
        seed = (self.sweep.seed * 100_003 + number) % 2**32
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)

    def _held(self, number: int) -> BaseFileLock | None:
        """Return the lock of a trial; None where its process lives."""
        lock = FileLock(self.folder / f"trial-{number:04d}.lock")
        try:
            return lock.acquire(timeout=0).lock
        except Timeout:
            return None

    def _looking(self) -> BaseFileLock:
        """Return the lock under which one process at a time looks for a trial."""
        return FileLock(self.folder / "trials.lock", poll_interval=0.02)


def _epochs(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values, default=0)


def _draw(trial: Trial, key: str, values: Span | tuple[Any, ...]) -> Any:
    if not isinstance(values, Span):
        return _value(trial.suggest_categorical(key, [label_of(one) for one in values]), values)
    ends = {"low": values.low, "high": values.high, "log": values.log}
    if values.is_whole:
        return trial.suggest_int(key, **ends, step=int(values.step) or 1)
    return _value(trial.suggest_float(key, **ends, step=values.step or None), values)


def _value(drawn: Any, values: Span | tuple[Any, ...]) -> Any:
    """Return the value that a journal's entry stands for."""
    if isinstance(values, Span):
        return round(drawn, 9) if values.step else drawn  # steps add up to 0.30000000000000004
    return values[[label_of(one) for one in values].index(drawn)]


PRUNERS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {
    "none": lambda _: optuna.pruners.NopPruner(),
    "median": lambda _: optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
    "hyperband": lambda epochs: optuna.pruners.HyperbandPruner(1, epochs),
}
