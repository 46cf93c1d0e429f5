"""`driftloop replay`: plays a recorded stretch against a running loop, step by step, as its producer and as its client."""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import click
import grpc

from driftloop.client import (
    ClientError,
    ClockBehind,
    EventsClient,
    NoModel,
    PredictionRequest,
    PredictionsClient,
    Unreachable,
)
from driftloop.contracts import rfc3339
from driftloop.usecase import (
    DAY_US,
    ReplayStep,
    ReplayStretch,
    UseCase,
    UseCaseError,
    load_replay,
    load_use_case,
    replay_steps,
)

if TYPE_CHECKING:
    from rich.console import Console

RETRAIN_TIMEOUT_S = 900.0  # how long one step may take while a model is trained
WAIT_SLICE_S = 25.0
DOOR_TIMEOUT_S = 10.0  # how long a door may take to be reached at the start; a service that was killed is back by then
AGAIN_PAUSE_S = 0.5
AGAIN_TIMEOUT_S = 120.0  # a broker on a busy machine takes half a minute to come back
SAID_PARTS = 20  # lines that a whole replay prints where no terminal shows its bar
T = TypeVar("T")


@dataclass(slots=True)
class Played:
    """What a replay did: counts of events and calls, and how long the calls took (seconds)."""

    events: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("sent", "accepted", "duplicate", "rejected"), 0)
    )
    predictions: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("answered", "before_model", "failed"), 0)
    )
    failures: list[str] = field(default_factory=list)
    predict_s: list[float] = field(default_factory=list)
    ingest_s: float = 0.0
    wait_s: list[float] = field(default_factory=list)
    steps: int = 0
    clock_us: int = 0


class Replay:
    """Plays steps: asks the step's predictions, sends its events, moves the clock, waits until the loop has followed."""

    def __init__(self, use_case: UseCase, ingest_address: str, serving_address: str) -> None:
        self.played = Played()
        self._events = EventsClient(ingest_address, use_case, source="replay")
        self._predictions = PredictionsClient(serving_address, use_case)

    def run(
        self, steps: Iterator[ReplayStep], after_step: Callable[[ReplayStep, Played], None] | None = None
    ) -> Played:
        """Plays all steps; `after_step` sees each one done. Raises what no retry could mend, apart from failed predict calls."""
        first = True
        for step in steps:
            if first:
                self._persist(partial(self._events.advance, step.start_us))
                self._wait(step.start_us)
                first = False
            self._ask(step)
            self._send(step)
            self._persist(partial(self._events.advance, step.end_us))
            self._wait(step.end_us)
            self.played.steps += 1
            self.played.clock_us = step.end_us
            if after_step is not None:
                after_step(step, self.played)
        return self.played

    @staticmethod
    def _persist(call: Callable[[], T]) -> T:
        """Asks ingest; again where no answer came, as while a broker restarts: the same time or event twice changes nothing."""
        deadline_s = time.monotonic() + AGAIN_TIMEOUT_S
        while True:
            try:
                return call()
            except Unreachable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(AGAIN_PAUSE_S)

    def close(self) -> None:
        """Closes both channels."""
        self._events.close()
        self._predictions.close()

    def _ask(self, step: ReplayStep) -> None:
        counts = self.played.predictions
        requests = [PredictionRequest(r.entity, r.fields, f"replay-{r.at_us}") for r in step.requests]
        # One call alone, for its latency and because most callers ask one by one; the step's others in one call.
        for some in filter(None, (requests[:1], requests[1:])):
            started = time.perf_counter()
            try:
                if len(some) == 1:
                    self._predictions.predict(some[0])
                    self.played.predict_s.append(time.perf_counter() - started)
                else:
                    self._predictions.predict_batch(some)
            except NoModel:
                counts["before_model"] += len(some)
            except ClientError as error:
                counts["failed"] += len(some)
                self.played.failures.append(f"predict: {error}")
            else:
                counts["answered"] += len(some)

    def _send(self, step: ReplayStep) -> None:
        if not step.events:
            return
        started = time.perf_counter()
        outcomes = self._persist(partial(self._events.send_batch, step.events))
        self.played.ingest_s += time.perf_counter() - started
        self.played.events["sent"] += len(outcomes)
        for outcome in outcomes:
            self.played.events[outcome.outcome] += 1
            if outcome.outcome == "rejected":
                why = "; ".join(f"{v.field}: {v.description}" for v in outcome.violations)
                self.played.failures.append(f"event {outcome.event_id}: {why}")

    def _wait(self, clock_us: int) -> None:
        started = time.monotonic()
        while True:
            try:
                self._predictions.wait_for_clock(clock_us, timeout_s=WAIT_SLICE_S)
                break
            except (ClockBehind, Unreachable) as error:
                if time.monotonic() - started > RETRAIN_TIMEOUT_S:
                    raise TimeoutError(f"the loop has not followed in {RETRAIN_TIMEOUT_S:.0f} s: {error}") from error
        self.played.wait_s.append(time.monotonic() - started)


def require_door(option: str, address: str) -> None:
    """ClickException names the door at which nobody answers, and the option that says where it is."""
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(DOOR_TIMEOUT_S)
        except grpc.FutureTimeoutError as error:
            raise click.ClickException(
                f"nothing answers at {address}: start the loop (driftloop up), or say {option}."
            ) from error


class NoSuchOption(UseCaseError):
    """A use case's replay does not take an option: leave it out."""


def load_stretch(name: str, **options: Any) -> tuple[UseCase, ReplayStretch]:
    """A use case and a stretch of its recorded history; UseCaseError says what is wrong with the options.

    `options` are those that a person gave, None where not given; a replay takes those that its `stretch` has.
    """
    folders = os.environ.get("DRIFTLOOP_USECASES", "")
    use_case, source = load_use_case(name, folders), load_replay(name, folders)
    given = {option: value for option, value in options.items() if value is not None}
    taken = stretch_options(source)
    for option in given:
        if option not in taken:
            others = ", ".join(f"--{other}" for other in options if other in taken) or "none"
            raise NoSuchOption(f"the replay of {name} has no --{option}; of these options it takes {others}")
    stretch: ReplayStretch = source.stretch(**given)
    return use_case, stretch


def stretch_options(source: ModuleType) -> set[str]:
    """What can be said about a replay's stretch: the names of its arguments."""
    return set(inspect.signature(source.stretch).parameters)


def steps_of(use_case: UseCase, stretch: ReplayStretch) -> Iterator[ReplayStep]:
    """The stretch's steps, and empty ones until its last labels have matured."""
    return replay_steps(stretch, use_case.step_us, use_case.label.matures_after_us)


def step_count(use_case: UseCase, stretch: ReplayStretch) -> int:
    """How many steps `steps_of` gives, about."""
    return (stretch.end_us + use_case.label.matures_after_us - stretch.start_us) // use_case.step_us + 1


@contextmanager
def replay_progress(
    use_case: UseCase, stretch: ReplayStretch, console: Console
) -> Iterator[Callable[[ReplayStep, Played], None]]:
    """What to call after each step: a bar on a terminal; in a log or a pipe a line per twentieth of the stretch."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    steps = step_count(use_case, stretch)
    said_every = max(1, steps // SAID_PARTS)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replaying", total=steps)

        def after_step(step: ReplayStep, played: Played) -> None:
            day = (step.end_us - stretch.start_us) / DAY_US
            text = f"day {day:4.1f}  {played.events['accepted']} events  {played.predictions['answered']} predictions"
            progress.update(bar, advance=1, description=text)
            if not console.is_terminal and played.steps % said_every == 0:
                console.print(f"{text}  {played.steps}/{steps}", highlight=False, soft_wrap=True)

        yield after_step


@click.command()
@click.argument("name")
@click.option("--start", help="First day of the stretch, as 2013-03-01.")
@click.option("--days", type=click.IntRange(1, 366), help="Length of the stretch.")
@click.option("--rows", type=click.IntRange(min=1), help="The first so many rows of a table.")
@click.option("--inject", help="A change to inject, such as 'concept'.")
@click.option("--ingest", "ingest_address", envvar="INGEST_ADDRESS", default="127.0.0.1:7001", show_default=True)
@click.option("--serving", "serving_address", envvar="SERVING_ADDRESS", default="127.0.0.1:7003", show_default=True)
@click.option(
    "--json", "as_json", is_flag=True, help="What was played as one JSON object; progress goes to the error stream."
)
def replay(
    name: str,
    start: str | None,
    days: int | None,
    rows: int | None,
    inject: str | None,
    ingest_address: str,
    serving_address: str,
    as_json: bool,
) -> None:
    """Replay a recorded stretch of use case NAME against a running loop (`driftloop up`)."""
    from rich.console import Console

    try:
        use_case, stretch = load_stretch(name, start=start, days=days, rows=rows, inject=inject)
    except UseCaseError as error:
        raise click.UsageError(str(error)) from error
    require_door("--ingest", ingest_address)
    require_door("--serving", serving_address)
    player = Replay(use_case, ingest_address, serving_address)
    with replay_progress(use_case, stretch, Console(stderr=as_json)) as after_step:
        try:
            played = player.run(steps_of(use_case, stretch), after_step)
        except ClockBehind as error:
            instead = "replay what comes later (--start), or start a loop without data"
            raise click.ClickException(f"the replay stopped: {error}: {instead}") from error
        except (ClientError, TimeoutError) as error:
            raise click.ClickException(f"the replay stopped: {error}") from error
        finally:
            player.close()
    if as_json:
        told = {"events": played.events, "predictions": played.predictions, "steps": played.steps}
        told |= {"clock": rfc3339(played.clock_us), "failures": len(played.failures)}
        click.echo(json.dumps(told))
    else:
        click.echo(f"events {played.events}, predictions {played.predictions}")
    if played.failures:
        raise click.ClickException(f"{len(played.failures)} calls failed, the first: {played.failures[0]}")
