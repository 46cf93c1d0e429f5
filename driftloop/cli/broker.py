"""Which broker a command asks: one option for all of them."""

from __future__ import annotations

import os

import click
from click.core import ParameterSource

from driftloop.settings import named_brokers

_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"


def _named(context: click.Context, parameter: click.Parameter, servers: str) -> str:
    # Click takes an empty variable for one that is not set, and would ask the broker at the default address.
    if context.get_parameter_source(str(parameter.name)) is ParameterSource.DEFAULT:
        servers = os.environ.get(_VARIABLE, servers)
    try:
        return named_brokers(servers)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", context, parameter) from error


bootstrap_servers_option = click.option(
    "--bootstrap-servers",
    envvar=_VARIABLE,
    show_envvar=True,
    default="127.0.0.1:7092",
    show_default=True,
    callback=_named,
    help="The broker's host:port, or several with commas.",
)
