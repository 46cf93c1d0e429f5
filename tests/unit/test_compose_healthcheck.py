"""The containers' health check: waits for a door to serve, and says what it found instead."""

from __future__ import annotations

import threading

from deploy.compose.healthcheck import check
from deploy.local import free_base_port
from driftloop.telemetry import serve_health_in_thread


def test_a_door_that_opens_while_it_is_waited_for_is_healthy() -> None:
    address = f"127.0.0.1:{free_base_port()}"
    found: list[str] = []
    waiting = threading.Thread(target=lambda: found.append(check(address, 20.0)))
    waiting.start()
    health = serve_health_in_thread(address, "features")
    try:
        health.set_serving(True)
        waiting.join(20)
        assert found == [""]
    finally:
        health.stop(0)


def test_a_door_that_does_not_serve_or_answer_is_said() -> None:
    health = serve_health_in_thread("127.0.0.1:0", "features")
    try:
        assert check(f"127.0.0.1:{health.port}", 0.3) == "not serving in 0.3 s"
    finally:
        health.stop(0)
    assert check(f"127.0.0.1:{free_base_port()}", 0.3).startswith("does not answer: ")
