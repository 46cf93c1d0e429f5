"""The options by which a person says what is in a table; the same for every command that takes one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from driftloop.tables import InferenceOptions

SEVERAL = "several: separated by commas, or the option again"


def _several(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Names separated by commas, of all times that the option was given."""
    return tuple(name.strip() for part in value for name in part.split(",") if name.strip())


_OPTIONS = (
    click.option("--label", metavar="COL", help="The column to predict."),
    click.option(
        "--time", metavar="COL", help="When each row's prediction is asked; without it rows come one a minute."
    ),
    click.option("--label-time", metavar="COL", help="When each row's label became known."),
    click.option(
        "--label-delay", type=int, metavar="ROWS", help="After how many rows a label is known; 1, the next, by default."
    ),
    click.option(
        "--key",
        "keys",
        multiple=True,
        callback=_several,
        metavar="COL[,COL]",
        help=f"Who or what a row is about: what is known of it so far becomes features ({SEVERAL}).",
    ),
    click.option(
        "--categorical",
        multiple=True,
        callback=_several,
        metavar="COL[,COL]",
        help=f"Numbers that are codes ({SEVERAL}).",
    ),
    click.option(
        "--exclude",
        multiple=True,
        callback=_several,
        metavar="COL[,COL]",
        help=f"Columns to leave out, such as what is filled in after the fact ({SEVERAL}).",
    ),
    click.option(
        "--task", type=click.Choice(["classification", "regression"]), help="Where the label could be either."
    ),
    click.option("--positive", metavar="CLASS", help="Which of two classes is predicted."),
    click.option("--allow-repeated", is_flag=True, help="Identical rows are what happened, not one row told twice."),
)
_NAMES = (
    "label",
    "time",
    "label_time",
    "label_delay",
    "keys",
    "categorical",
    "exclude",
    "task",
    "positive",
    "allow_repeated",
)


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options about a table and hands them over as `options`: InferenceOptions, None without any.

    UsageError if there are options but no --label.
    """

    @functools.wraps(command)
    def with_options(*args: Any, **given: Any) -> Any:
        about = {name: given.pop(name) for name in _NAMES}
        options = None
        if about["label"] is not None:
            options = InferenceOptions(**about)
        elif any(about.values()):
            option = next(name for name, value in about.items() if value).replace("keys", "key").replace("_", "-")
            raise click.UsageError(
                f"--{option} says something about a table: say --label COL, too, the column to predict"
            )
        return command(*args, options=options, **given)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), with_options)
