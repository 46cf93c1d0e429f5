"""Runs policies side by side on one history: the same rows, the same first model, each in its turn or in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from driftloop.usecase import ReplayStep, ReplayStretch, UseCaseError, replay_steps
from services.trainer.attempts import TrainingSettings
from services.trainer.training import Train, train
from simulation.backtest.loop_policy import Answered, at_the_point, first_answer, run_loop
from simulation.backtest.outcome import Outcome
from simulation.backtest.policies import LOOP, WINDOW_SHARE, run_simple
from simulation.backtest.production import Setting, Told
from simulation.backtest.quality import Quality
from simulation.backtest.sources import Opened
from simulation.history import History, Rows, history_of

FIRST_SHARE = 0.1  # of the labelled rows: the labels that arrived by then make the first model
SCORED_ROWS_MIN = 100


class Unfit(UseCaseError):
    """The history does not bear a backtest: give more of it, or other columns."""


@dataclass(frozen=True)
class Prepared:
    """What every policy starts from. `scored`: rows whose answers count, the same for every policy."""

    history: History
    scored: Rows
    first: Answered
    quality: Quality
    window_rows: int
    seed: int
    training: TrainingSettings
    learn: Train = train

    @property
    def setting(self) -> Setting:
        """The same as simple policies see it."""
        model = self.first.model
        assert model is not None, "prepare refuses a history without a first model"
        return Setting(
            history=self.history,
            quality=self.quality,
            scored=self.scored,
            first=model,
            first_fit=self.first.fit,
            first_id=self.first.message.id,
            window_rows=self.window_rows,
            seed=self.seed,
            training=self.training,
            learn=self.learn,
        )


def prepare(
    opened: Opened,
    seed: int,
    training: TrainingSettings,
    told: Callable[[str, float], None],
    learn: Train = train,
) -> Prepared:
    """The history and the first model. `told` takes what is going on and how much of it is done, 0 to 1. Raises Unfit."""
    use_case, stretch = opened.use_case, opened.stretch
    span_us = max(1, stretch.end_us - stretch.start_us)
    history = history_of(
        use_case,
        stretch,
        lambda step: told("reading the history", min(1.0, (step.end_us - stretch.start_us) / span_us)),
    )
    labelled = history.labelled
    if not len(labelled):
        raise Unfit("no row has a label: nothing can be learned or scored")
    point_us = int(history.at_us[labelled[int(len(labelled) * FIRST_SHARE)]])
    history = replace(history, use_case=at_the_point(history, point_us))
    told("training the first model", 1.0)
    first = first_answer(history, _steps(history, stretch), seed, training, lambda line: None, learn)
    if first is None or first.model is None:
        why = "too few labels ever mature" if first is None else first.message.because
        raise Unfit(f"no first model could be trained: {why}; give more rows, or a label that is known earlier")
    scored = labelled[history.at_us[labelled] >= max(point_us, first.fit.clock_us)]
    if len(scored) < SCORED_ROWS_MIN:
        raise Unfit(f"only {len(scored)} labelled rows come after the first model: give more rows")
    window_rows = round(len(labelled) * WINDOW_SHARE)
    quality = Quality.of(history, history.labels_at(first.fit.clock_us)[history.mature(first.fit.clock_us)])
    return Prepared(history, scored, first, quality, window_rows, seed, training, learn)


def _steps(history: History, stretch: ReplayStretch) -> Iterator[ReplayStep]:
    return replay_steps(stretch, history.use_case.step_us, history.use_case.label.matures_after_us)


def run_policy(prepared: Prepared, stretch: ReplayStretch, policy: str, told: Told) -> Outcome:
    """Runs one policy from the first scored row to the last."""
    started = time.perf_counter()
    if policy == LOOP:
        outcome = run_loop(prepared.setting, prepared.first, _steps(prepared.history, stretch), told)
    else:
        outcome = run_simple(policy, prepared.setting, told)
    outcome.seconds = time.perf_counter() - started
    return outcome
