"""The bare gRPC server that ingest's calls are held against: grpc.aio on uvloop as in ingest, the same requests, no work.

`python -m bench.ingest.echo ADDRESS`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from driftloop.contracts.ingest.v1.ingest_pb2 import OUTCOME_ACCEPTED, IngestRequest, IngestResponse
from driftloop.contracts.ingest.v1.ingest_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server


class Echo(IngestServiceServicer):
    """Answers without a thought."""

    async def Ingest(self, request: IngestRequest, context: Any) -> IngestResponse:
        """One."""
        return IngestResponse(event_id=request.event.id, outcome=OUTCOME_ACCEPTED)

    async def IngestStream(self, requests: AsyncIterator[IngestRequest], context: Any) -> AsyncIterator[IngestResponse]:
        """One by one."""
        async for request in requests:
            yield IngestResponse(event_id=request.event.id, outcome=OUTCOME_ACCEPTED)


async def serve(address: str) -> None:
    """Serves until it is killed."""
    server = grpc.aio.server()
    add_IngestServiceServicer_to_server(Echo(), server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
