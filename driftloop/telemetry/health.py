"""The standard gRPC health and reflection services, for servers on asyncio and for processes that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import grpc
from grpc_health.v1 import health as sync_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# Health checks and watches hold a thread each; more than a supervisor, a load balancer and a person need.
HEALTH_THREADS = 8


class AddressInUse(Exception):
    """The door's address cannot be bound: free it or configure another."""


def _names(service: str) -> tuple[str, str]:
    return "", f"driftloop.{service}"


def _reflected(names: Sequence[str]) -> tuple[str, ...]:
    return (*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)


class _AioServicer(Protocol):
    async def set(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus) -> None: ...


class Health:
    """What a grpc.aio server's health service answers for "" and "driftloop.<service>"; NOT_SERVING at first."""

    def __init__(self, servicer: _AioServicer, service: str, parts: Sequence[str] = ()) -> None:
        self._servicer = servicer
        self._service = service
        self._parts = tuple(parts)

    async def set_serving(self, serving: bool) -> None:
        """SERVING once the service is ready for work; NOT_SERVING again, as every part, when it stops taking work."""
        for name in (*_names(self._service), *(() if serving else self._parts)):
            await self.set(name, serving)

    async def set(self, name: str, serving: bool) -> None:
        """The same for one name: that of a part of the service, which may be ready before the whole is."""
        await self._servicer.set(name, SERVING if serving else NOT_SERVING)


class _ByName:
    """A server as generated code sees it, which finds the methods added to it by their name alone.

    A method that is registered as well has a waiter of its own in grpc.aio, which looks through all waiters (asyncio.wait, in
    Python) at every call of any method: what is asked for once in seconds would cost every prediction and every event.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Nothing: they are among the generic ones."""


async def add_health_and_reflection(
    server: grpc.aio.Server, service: str, names: Sequence[str] = (), parts: Sequence[str] = ()
) -> Health:
    """Adds both services to a server that has not started.

    `names`: full proto names of the services it offers; `parts`: further names that health is asked by.
    """
    servicer = sync_health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
    health = Health(servicer, service, parts)
    await health.set_serving(False)
    by_name = _ByName(server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, by_name)
    reflected = reflection.aio.ReflectionServicer(_reflected(names))  # type: ignore[attr-defined]  # the stubs lack it
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, by_name)
    return health


class HealthServer:
    """A grpc.aio server of health and reflection for a service that lives on an asyncio loop (Faust's, for one).

    Other servicers may be added to `server` before `start`; name them in `names` for reflection.
    """

    def __init__(self, address: str, service: str, names: Sequence[str] = ()) -> None:
        self._address = address
        self._service = service
        self._names = tuple(names)
        self._health: Health | None = None
        self._server: grpc.aio.Server | None = None
        self.port = 0

    @property
    def server(self) -> grpc.aio.Server:
        """The server, made on the running loop when first asked for."""
        if self._server is None:
            self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        return self._server

    async def start(self) -> None:
        """Binds and starts, not serving yet; raises AddressInUse."""
        self._health = await add_health_and_reflection(self.server, self._service, self._names)
        try:
            self.port = self.server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise AddressInUse(f"{self._service} cannot listen on {self._address}") from error
        await self.server.start()

    async def set_serving(self, serving: bool) -> None:
        """Answers SERVING or NOT_SERVING from now on."""
        if self._health is not None:
            await self._health.set_serving(serving)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Answers NOT_SERVING, lets calls end for `grace_s` and stops."""
        await self.set_serving(False)
        await self.server.stop(grace_s)


class ThreadedHealth:
    """A health server on threads of its own, for a process without an event loop."""

    def __init__(self, server: grpc.Server, servicer: sync_health.HealthServicer, service: str, port: int) -> None:
        self._server = server
        self._servicer = servicer
        self._service = service
        self.port = port

    def set_serving(self, serving: bool) -> None:
        """Answers SERVING or NOT_SERVING from now on."""
        for name in _names(self._service):
            self._servicer.set(name, SERVING if serving else NOT_SERVING)

    def stop(self, grace_s: float = 1.0) -> None:
        """Answers NOT_SERVING, lets calls end for `grace_s` and stops."""
        self.set_serving(False)
        self._server.stop(grace_s).wait(grace_s + 1.0)


def serve_health_in_thread(address: str, service: str) -> ThreadedHealth:
    """Starts health and reflection on `address`, NOT_SERVING at first; raises AddressInUse."""
    server = grpc.server(ThreadPoolExecutor(HEALTH_THREADS, f"{service}-health"), options=[("grpc.so_reuseport", 0)])
    servicer = sync_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(_reflected(()), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressInUse(f"{service} cannot listen on {address}") from error
    health = ThreadedHealth(server, servicer, service, port)
    health.set_serving(False)
    server.start()
    return health
