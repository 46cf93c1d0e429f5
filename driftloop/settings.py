"""Settings that a process reads from its environment: what is wrong with them is said before it starts, by the variables' names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AliasChoices, ValidationError
from pydantic_settings import BaseSettings

WRONG_USE = 2
PORT_MAX = 65_535
T = TypeVar("T", bound=BaseSettings)


def named_brokers(servers: str) -> str:
    """The brokers' addresses, host:port with commas, as they are given; ValueError where they are none."""
    if not servers.replace(",", " ").strip():
        raise ValueError("names no broker; write host:port, several with commas, or leave it unset")
    return servers


BootstrapServers = Annotated[str, AfterValidator(named_brokers)]


def settings_from_environment(kind: type[T], *others: type[BaseSettings]) -> T:
    """The settings of a service. `others` are read by what needs them, and only looked at here.

    Ends the process with exit code 2 and one line on standard error if any of them cannot be; values are not shown.
    """
    kinds: tuple[type[BaseSettings], ...] = (kind, *others)
    found: T | None = None
    wrong: list[str] = []
    for each in kinds:
        try:
            read = each()
        except ValidationError as error:
            wrong += complaints(each, error)
        else:
            found = read if isinstance(read, kind) else found
            wrong += _misaddressed(read)
    if wrong or found is None:
        sys.stderr.write(f"cannot start: {'; '.join(wrong)}\n")
        sys.exit(WRONG_USE)
    return found


def complaints(kind: type[BaseSettings], error: ValidationError) -> Iterator[str]:
    """What is wrong with settings, a sentence for each variable."""
    for detail in error.errors(include_url=False, include_input=False):
        what = detail["msg"].removeprefix("Value error, ")
        name = _variable(kind, str(detail["loc"][0])) if detail["loc"] else ""
        yield f"{name}: {what}" if name else what


def _misaddressed(settings: BaseSettings) -> Iterator[str]:
    """What is wrong with the ports that a process is to listen on: servers take one too high modulo 65,536, and say nothing."""
    for field, value in settings:
        port = value.rpartition(":")[2] if field.endswith("address") and isinstance(value, str) else ""
        if port.isdecimal() and int(port) > PORT_MAX:
            yield f"{_variable(type(settings), field)}: there is no port {port}, they end at {PORT_MAX}"


def _variable(kind: type[BaseSettings], name: str) -> str:
    field = kind.model_fields.get(name)
    if field is None:  # an alias, by which it was found
        return name
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return f"{kind.model_config.get('env_prefix', '')}{name}".upper()
