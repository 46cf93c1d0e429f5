"""Monitor: production's hosts with matching and judging."""

from __future__ import annotations

from driftloop.artifacts.checkpoints import CheckpointStore
from services.monitor.gateways import judging_host, matching_host
from simulation.hosted.machine import SPREAD, Service, no_cost
from simulation.process import Process

SERVING_REPLICAS = 1


class Monitor(Service):
    """Both stages in one process."""

    name = "monitor"

    async def live(self, process: Process) -> None:
        """See `Service.live`."""
        assert self.producer is not None
        assert self.store is not None
        machine, checkpoints = self.machine, CheckpointStore(self.store, self.machine.use_case.name)
        for build in (matching_host, judging_host):
            host = build(
                machine.use_case,
                SERVING_REPLICAS,
                SPREAD,
                self.producer,
                checkpoints,
                settings=machine.host_settings,
                cpu_s=no_cost,
            )
            hosted = self.host(process, host)
            await hosted.assign()
            process.keep(hosted.work())
