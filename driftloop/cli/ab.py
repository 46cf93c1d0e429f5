"""`driftloop ab`: named arms beside the champion, each for its share of entities, and how they do on mature labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import click

from driftloop.cli.orders import Order, with_order
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_AB_REPORT,
    COMMAND_KIND_AB_START,
    COMMAND_KIND_AB_STOP,
    DECISION_KIND_AB,
    DECISION_KIND_AB_END,
    Arm,
    CommandKind,
)


class ArmOption(click.ParamType):
    """NAME=MODEL:SHARE."""

    name = "NAME=MODEL:SHARE"

    def convert(self, value: str | Arm, param: click.Parameter | None, ctx: click.Context | None) -> Arm:
        """The arm; wrong use if the text is no such thing."""
        if isinstance(value, Arm):
            return value
        name, _, rest = value.partition("=")
        model_id, _, text = rest.rpartition(":")
        try:
            share = float(text)
        except ValueError:
            self.fail(f"{value!r} is not NAME=MODEL:SHARE, such as treatment=m2:0.1", param, ctx)
        if not 0.0 < share < 1.0:
            self.fail(f"{value!r}: a share lies between 0 and 1, of all entities", param, ctx)
        return Arm(name=name, model_id=model_id, share=share)


@click.group()
def ab() -> None:
    """Let named arms answer beside the champion, and see how each does."""


def _ask(order: Order, kind: CommandKind, arms: Sequence[Arm] = ()) -> None:
    outcome = order.given(kind, arms=arms)
    release = outcome.release
    figures: Mapping[str, float] = {}
    for decision in outcome.decisions:
        if decision.kind in (DECISION_KIND_AB, DECISION_KIND_AB_END):
            figures = decision.evidence
    by_arm = by_name(figures)
    if order.as_json:
        named = {arm.name: {"model": arm.model_id, "share": arm.share} for arm in release.arms if arm.name}
        state = {"use_case": order.use_case, "revision": release.revision, "champion": release.champion.model_id}
        click.echo(json.dumps(state | {"arms": named, "figures": by_arm, "not_applied": outcome.behind}))
    else:
        for name, figures_of in by_arm.items():
            click.echo(f"{name}: {in_words(figures_of)}")
        answering = [f"{arm.name} ({arm.model_id}) {arm.share:.1%}" for arm in release.arms if arm.name]
        champion = f"champion ({release.champion.model_id}) {release.champion.share:.1%}"
        click.echo(f"release {release.revision}: {', '.join([champion, *answering])}")
    outcome.raise_if_behind()


def by_name(figures: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """A decision's evidence, `<arm>/<figure>`, by arm; the champion first."""
    found: dict[str, dict[str, float]] = {}
    for name in sorted(figures, key=lambda name: (not name.startswith("champion/"), name)):
        arm, _, figure = name.partition("/")
        found.setdefault(arm, {})[figure] = figures[name]
    return found


def in_words(of: Mapping[str, float]) -> str:
    """One arm's figures for a person; ± is two standard errors."""
    words = [f"{of.get('exposures', 0):.0f} answers, {of.get('rows', 0):.0f} with mature labels"]
    for figure, said in (("loss", "loss"), ("gain", "gain over the champion")):
        if figure in of:
            error = f" ± {2 * of[f'{figure}_error']:.4f}" if f"{figure}_error" in of else ""
            on = f" on {of['paired_rows']:.0f} rows that both scored" if figure == "gain" else ""
            words.append(f"{said} {of[figure]:.4f}{error}{on}")
    return ", ".join(words)


@ab.command()
@click.option(
    "--arm",
    "arms",
    type=ArmOption(),
    multiple=True,
    required=True,
    help="A name, the model that answers under it, and its share of entities; the champion answers the rest.",
)
@with_order
def start(order: Order, arms: tuple[Arm, ...]) -> None:
    """Begin a comparison; no evidence changes who answers until it is stopped."""
    _ask(order, COMMAND_KIND_AB_START, arms)


@ab.command()
@with_order
def stop(order: Order) -> None:
    """End the comparison, and say how its arms did."""
    _ask(order, COMMAND_KIND_AB_STOP)


@ab.command()
@with_order
def report(order: Order) -> None:
    """Say how the arms do so far."""
    _ask(order, COMMAND_KIND_AB_REPORT)
