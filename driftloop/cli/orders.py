"""`driftloop rollback` and what else people may ask of a release: sent to monitor, answered by its decision and release."""

from __future__ import annotations

import getpass
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, NamedTuple

import click
import grpc

from driftloop.cli.broker import bootstrap_servers_option
from driftloop.contracts import Message, Record
from driftloop.contracts.monitor.v1.monitor_pb2 import (
    COMMAND_KIND_APPROVE,
    COMMAND_KIND_DRAIN,
    COMMAND_KIND_PAUSE,
    COMMAND_KIND_PIN,
    COMMAND_KIND_REJECT,
    COMMAND_KIND_RESUME,
    COMMAND_KIND_ROLL_BACK,
    COMMAND_KIND_UNPIN,
    DECISION_KIND_COMMAND_REFUSED,
    Arm,
    Command,
    CommandKind,
    Decision,
    Release,
)
from driftloop.contracts.serving.v1.serving_pb2 import GetReleaseRequest
from driftloop.contracts.serving.v1.serving_pb2_grpc import PredictionServiceStub
from driftloop.messaging import KafkaProducer, KafkaReader, KafkaSettings, MessagingError

_POLL_S, _BATCH_RECORDS = 0.5, 1_000
_ASK_AGAIN_S, _SEND_TIMEOUT_S = 0.02, 10.0
_KINDS: dict[str, tuple[CommandKind, str]] = {
    "rollback": (COMMAND_KIND_ROLL_BACK, "Return to the former champion at once."),
    "approve": (COMMAND_KIND_APPROVE, "Approve the promotion that waits for a person."),
    "reject": (COMMAND_KIND_REJECT, "Take the challenger out of the comparison."),
    "pin": (COMMAND_KIND_PIN, "Keep the champion, or --model, in its place until unpin."),
    "unpin": (COMMAND_KIND_UNPIN, "Let evidence decide again about a pinned champion."),
    "pause": (COMMAND_KIND_PAUSE, "Let the release stand still until resume; a rollback still happens."),
    "drain": (COMMAND_KIND_DRAIN, "Let the challenger answer nobody until resume."),
    "resume": (COMMAND_KIND_RESUME, "End a pause or a drain."),
}


def command_of(
    use_case: str, kind: CommandKind, who: str, why: str, model_id: str = "", arms: Sequence[Arm] = ()
) -> Message[Command]:
    """The message of what somebody asks for; its id is new each time, because asking twice is two wishes."""
    command_id, at_us = uuid.uuid4().hex, time.time_ns() // 1000
    payload = Command(
        use_case=use_case, id=command_id, kind=kind, who=who, why=why, model_id=model_id, at_us=at_us, arms=arms
    )
    return Message("commands", use_case, payload, command_id, f"people/{who}", at_us, at_us)


class Asked:
    """A command that was sent, and monitor's answer to it."""

    def __init__(self, servers: str, use_case: str, message: Message[Command]) -> None:
        self._id = message.id
        settings = KafkaSettings()
        self._reader = KafkaReader(
            servers,
            use_case,
            ["decisions", "releases"],
            from_start=False,
            settings=settings,
            client_id="orders",
            connect_timeout_s=settings.connect_timeout_s,
        )
        producer = KafkaProducer(servers, use_case, "orders", settings)
        try:
            producer.send(message)
        finally:
            producer.close(_SEND_TIMEOUT_S)

    def answer(self, timeout_s: float) -> tuple[list[Decision], Release]:
        """The decisions that follow from the command and the release that they lead to; TimeoutError."""
        until_s = time.monotonic() + timeout_s
        decisions: dict[str, Decision] = {}
        releases: dict[str, Release] = {}
        while time.monotonic() < until_s:
            for record in self._reader.poll(_POLL_S, _BATCH_RECORDS):
                if not isinstance(record, Record) or record.message.is_watermark:
                    continue
                message = record.message
                if record.topic == "decisions" and self._id in message.causes:
                    decisions[message.id] = message.payload
                elif record.topic == "releases":
                    releases[message.payload.decision_id] = message.payload
            for decision_id in decisions:
                if decision_id in releases:
                    return list(decisions.values()), releases[decision_id]
        raise TimeoutError(f"monitor has not answered within {timeout_s:g} s: is it up?")

    def close(self) -> None:
        """Ends the reading."""
        self._reader.close()


def await_applied(addresses: Sequence[str], use_case: str, revision: int, until_s: float) -> list[str]:
    """Waits until each serving answers by a release of that revision or a newer one; those that do not, and why."""
    behind = []
    for address in addresses:
        with grpc.insecure_channel(address) as channel:
            stub: Any = PredictionServiceStub(channel)
            why = "it has not applied the release"
            while True:
                try:
                    found = stub.GetRelease(GetReleaseRequest(use_case=use_case), timeout=1.0).release.revision
                    why = f"it answers by release {found}"
                    if found >= revision:
                        break
                except grpc.RpcError as error:
                    why = f"{error.code().name}: {error.details()}"
                if time.monotonic() >= until_s:
                    behind.append(f"{address}: {why}")
                    break
                time.sleep(_ASK_AGAIN_S)
    return behind


class Outcome(NamedTuple):
    """What became of an order: monitor's decisions, the release that follows, who has not applied it yet, and how long it took."""

    decisions: list[Decision]
    release: Release
    behind: list[str]
    seconds: float

    def raise_if_behind(self) -> None:
        """ClickException names the replicas that have not applied the release, and why."""
        if self.behind:
            raise click.ClickException("not applied yet by " + "; ".join(self.behind))


@dataclass(frozen=True)
class Order:
    """What somebody asks of the release of a use case, before it is said what: who and why, where, and until when."""

    use_case: str
    who: str
    why: str
    bootstrap_servers: str
    serving: tuple[str, ...]
    timeout_s: float
    as_json: bool

    def given(self, kind: CommandKind, model_id: str = "", arms: Sequence[Arm] = ()) -> Outcome:
        """Sends the order and waits until it is in effect; ClickException if monitor refuses or does not answer."""
        began_s = time.monotonic()
        message = command_of(self.use_case, kind, self.who, self.why, model_id, arms)
        try:
            asked = Asked(self.bootstrap_servers, self.use_case, message)
            try:
                decisions, release = asked.answer(self.timeout_s)
            finally:
                asked.close()
        except (MessagingError, TimeoutError) as error:
            raise click.ClickException(str(error)) from error
        refused = [d.because for d in decisions if d.kind == DECISION_KIND_COMMAND_REFUSED]
        if refused:
            raise click.ClickException("; ".join(refused))
        behind = await_applied(self.serving, self.use_case, release.revision, began_s + self.timeout_s)
        return Outcome(decisions, release, behind, time.monotonic() - began_s)


def _made(name: str, kind: CommandKind, summary: str) -> click.Command:
    def run(order: Order, model_id: str) -> None:
        outcome = order.given(kind, model_id)
        release = outcome.release
        state = {
            "use_case": order.use_case,
            "revision": release.revision,
            "champion": release.champion.model_id,
            "pinned": release.pinned,
            "paused": release.paused,
            "awaiting_approval": release.awaiting_approval,
            "seconds": round(outcome.seconds, 3),
            "not_applied": outcome.behind,
        }
        if order.as_json:
            click.echo(json.dumps(state))
        else:
            held = "".join(f", {name} is pinned" for name in [release.pinned] if name) + ", paused" * release.paused
            answers = f"{release.champion.model_id or 'no model'} answers{held}"
            click.echo(f"release {release.revision}: {answers} ({outcome.seconds:.2f} s)")
        outcome.raise_if_behind()

    hidden = kind not in (COMMAND_KIND_PIN, COMMAND_KIND_APPROVE, COMMAND_KIND_REJECT)
    model = click.option(
        "--model", "model_id", default="", hidden=hidden, help="A model's id; by default the one that is meant."
    )
    return click.command(name, help=summary)(with_order(model(run)))


class Seconds(click.FloatRange):
    """A duration that ends: "nan" and "inf" are floats that Python reads, and no number of seconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


def myself() -> str:
    """Who runs this process, and where; by number where the machine knows no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # the former until Python 3.12
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def with_order(run: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that every order to monitor has, as its first argument, an `Order`."""

    @wraps(run)
    def ordered(**options: Any) -> None:
        run(Order(**{field.name: options.pop(field.name) for field in fields(Order)}), **options)

    found: Callable[..., None] = ordered
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
        click.option(
            "--timeout",
            "timeout_s",
            type=Seconds(min=0, min_open=True),
            default=10.0,
            show_default=True,
            help="Seconds until it must be in effect.",
        ),
        click.option(
            "--serving",
            multiple=True,
            envvar="SERVING_ADDRESS",
            default=("127.0.0.1:7003",),
            show_default=True,
            help="Where to see that it is in effect; several times for several replicas.",
        ),
        bootstrap_servers_option,
        click.option("--why", default="no reason was given", help="For the log."),
        click.option("--who", default=myself, help="For the log: by default you."),
        click.argument("use_case", default="flights"),
    ):
        found = option(found)
    return found


rollback, approve, reject, pin, unpin, pause, drain, resume = (
    _made(name, kind, summary) for name, (kind, summary) in _KINDS.items()
)
