"""Health and reflection as supervisors and people ask for them, on an event loop and on threads."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from driftloop.telemetry import HealthServer, serve_health_in_thread
from driftloop.telemetry.health import NOT_SERVING, SERVING, AddressInUse

pytestmark = pytest.mark.timeout(20)
NAMES = ("", "driftloop.monitor")


async def _asked(port: int) -> list[int]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return [(await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status for name in NAMES]


async def test_a_service_on_a_loop_is_serving_once_it_says_so() -> None:
    server = HealthServer("127.0.0.1:0", "monitor")
    await server.start()
    try:
        assert await _asked(server.port) == [NOT_SERVING] * 2
        await server.set_serving(True)
        assert await _asked(server.port) == [SERVING] * 2
        await server.set_serving(False)
        assert await _asked(server.port) == [NOT_SERVING] * 2
    finally:
        await server.stop()


async def test_reflection_lists_what_is_offered() -> None:
    server = HealthServer("127.0.0.1:0", "monitor", names=["driftloop.ingest.v1.IngestService"])
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=5)
            listed = [s.name async for answer in call for s in answer.list_services_response.service]
        assert set(listed) >= {"grpc.health.v1.Health", "driftloop.ingest.v1.IngestService"}
    finally:
        await server.stop()


def test_a_service_without_a_loop_answers_from_threads() -> None:
    health = serve_health_in_thread("127.0.0.1:0", "trainer")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{health.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="driftloop.trainer")
            assert stub.Check(asked, timeout=5).status == NOT_SERVING
            health.set_serving(True)
            assert stub.Check(asked, timeout=5).status == SERVING
    finally:
        health.stop()


def test_a_taken_address_is_named() -> None:
    first = serve_health_in_thread("127.0.0.1:0", "trainer")
    try:
        with pytest.raises(AddressInUse, match=str(first.port)):
            serve_health_in_thread(f"127.0.0.1:{first.port}", "trainer")
    finally:
        first.stop()
