"""What the README shows is what works: its example runs on the loop that its commands leave behind."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftloop.contracts.monitor.v1.monitor_pb2 import ROLE_CHAMPION
from driftloop.usecase import load_use_case
from tests.unit.ingest_twin import door
from tests.unit.serving_twin import Constant, twin

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
# 42 days from the first of March, and until the last label has matured.
REPLAYED_US = int(datetime(2013, 4, 13, 6, tzinfo=UTC).timestamp() * 1e6)


async def test_the_example_is_accepted_and_answered_after_the_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    flights = load_use_case("flights")
    async with door(flights) as ingest, twin(tmp_path, {"m1": Constant(0.5)}, use_case=flights) as serving:
        await serving.released(("m1", ROLE_CHAMPION))
        await ingest.intake.advance("flights", REPLAYED_US)
        here = code.replace("127.0.0.1:7001", ingest.address)
        here = here.replace("127.0.0.1:7003", f"127.0.0.1:{serving.replica.port}")
        await asyncio.to_thread(exec, compile(here, "README.md", "exec"), {})
        assert [message.id for message in ingest.events()] == ["e-1"]
    assert capsys.readouterr().out.startswith("0.5 m1 ")
