"""Which broker a command asks: one option for all of them."""

from __future__ import annotations

import os

import click
from click.core import ParameterSource

from driftloop.settings import named_brokers

VARIABLE, DEFAULT = "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:7092"


def brokers_of_environment() -> str:
    """What the variable names, or the default; ValueError where it is there and names none."""
    return named_brokers(os.environ.get(VARIABLE, DEFAULT))


def _named(context: click.Context, parameter: click.Parameter, servers: str) -> str:
    # Click takes an empty variable for one that is not set, and would ask the broker at the default address.
    is_default = context.get_parameter_source(str(parameter.name)) is ParameterSource.DEFAULT
    try:
        return brokers_of_environment() if is_default else named_brokers(servers)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", context, parameter) from error


bootstrap_servers_option = click.option(
    "--bootstrap-servers",
    envvar=VARIABLE,
    show_envvar=True,
    default=DEFAULT,
    show_default=True,
    callback=_named,
    help="The broker's host:port, or several with commas.",
)
