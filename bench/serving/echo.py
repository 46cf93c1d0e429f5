"""The bare gRPC server that serving's calls are held against: the same request, parsed and sent back, and no work.

`python -m bench.serving.echo ADDRESS aio|sync`: grpc.aio on uvloop, as in serving, or a server on threads.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import uvloop

from driftloop.contracts.serving.v1.serving_pb2 import PredictRequest

SERVICE = "driftloop.serving.v1.PredictionService"
_THREADS = 16


async def _echo(request: PredictRequest, context: Any) -> PredictRequest:
    return request


def _echo_on_a_thread(request: PredictRequest, context: Any) -> PredictRequest:
    return request


def _add(server: Any, behaviour: Any) -> None:
    method = grpc.unary_unary_rpc_method_handler(behaviour, PredictRequest.FromString, PredictRequest.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Predict": method}),))


async def _serve(address: str) -> None:
    server = grpc.aio.server()
    _add(server, _echo)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serves until it is killed."""
    address, kind = sys.argv[1:]
    if kind == "aio":
        uvloop.run(_serve(address))
        return
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    _add(server, _echo_on_a_thread)
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
