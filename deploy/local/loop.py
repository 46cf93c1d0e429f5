"""The whole loop on one machine: Kafka, its topics and the five services as processes, from start to stop."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from deploy.local.claim import Claim
from deploy.local.deadline import wait_until
from deploy.local.errors import CheckTheBroker, ChooseAnotherFolder, FreeDiskSpace, ReadTheLog
from deploy.local.health import BrokerHealth, ServiceHealth
from deploy.local.kafka import NAME as KAFKA
from deploy.local.kafka import KafkaNode
from deploy.local.machine import require_disk, require_free_ports
from deploy.local.memory import PeakMemory
from deploy.local.ports import Ports, free_base_port, start_on_free_ports
from deploy.local.processes import Processes
from deploy.local.settings import REPOSITORY_ROOT, LocalSettings
from deploy.local.supervisor import Command, Reporter, Supervisor
from deploy.local.topics import create_topics
from driftloop.usecase.discovery import search_path

SERVICES = ("ingest", "features", "serving", "monitor", "trainer")
HTTP_DOORS = ("ingest", "serving")
"""Services that also open a door on their HTTP address."""
ClockMode = Literal["live", "replay"]
# What a fresh start removes: folders that only a loop writes, never the state folder itself, which a user chose.
_OWNED = ("kafka", "state", "artifacts", "logs")


def interpreter(service: str, root: Path = REPOSITORY_ROOT) -> str:
    """A service's own environment where there is one, else the Python that runs this."""
    own = root / ".venvs" / service / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def service_commands(root: Path = REPOSITORY_ROOT) -> dict[str, list[str]]:
    """Command line of each service, in the order in which they start; their ports follow the same order."""
    return {name: [interpreter(name, root), "-m", f"services.{name}"] for name in SERVICES}


class LocalLoop:
    """A running loop: `with LocalLoop(...) as loop:` returns ready services and leaves nothing behind.

    Supervision goes on in a thread of its own, so the caller is free to replay, predict or kill. Parameters:

    use_case     name of the use case
    state_dir    folder for Kafka's data, services' state, artifacts and logs
    base_port    see `Ports`; "free" looks for ports that are free, and for others where one is taken before it is bound
    clock_mode   "live" or "replay"; None leaves it to the use case
    fresh        remove what an earlier loop left in the folder (not the topics of a broker of the user's own)
    reporter     takes one line of text for people at a time, from any thread
    commands     name → command line, instead of the five services; each must serve the standard gRPC health check at
                 the address in its <NAME>_ADDRESS
    settings     bounds and timeouts
    """

    def __init__(
        self,
        use_case: str = "flights",
        state_dir: Path | None = None,
        base_port: int | Literal["free"] | None = None,
        clock_mode: ClockMode | None = None,
        fresh: bool = False,
        reporter: Reporter = lambda line: None,
        commands: Mapping[str, Sequence[str]] | None = None,
        settings: LocalSettings | None = None,
    ) -> None:
        self.settings = settings or LocalSettings()
        self.use_case = use_case
        self.state_dir = (state_dir or self.settings.state_dir).absolute()
        self._clock_mode = clock_mode
        self._fresh = fresh
        self._report = reporter
        self._commands = service_commands() if commands is None else commands
        self._takes_any_ports = base_port == "free"
        if base_port == "free":
            base_port = free_base_port()
        self._use_ports(Ports(self.settings.base_port if base_port is None else base_port))
        self._claim: Claim | None = None
        self._processes: Processes | None = None
        self._supervisor: Supervisor | None = None
        self._memory: PeakMemory | None = None

    def _use_ports(self, ports: Ports) -> None:
        service_ports = ports.services(self._commands)
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in service_ports.items()}
        """host:port of each service's gRPC door."""
        http_ports = ports.http(self._commands)
        self.http_addresses = {name: f"127.0.0.1:{port}" for name, port in http_ports.items()}
        """host:port where a service that has an HTTP door opens it."""
        self._node: KafkaNode | None = None
        if not self.settings.kafka_bootstrap_servers:
            log = self.log_dir / "kafka.log"
            self._node = KafkaNode(self.state_dir / "kafka", ports.kafka, ports.controller, log)
        http_uses = {f"{name}'s HTTP door": port for name, port in http_ports.items()}
        self._used_ports = {**service_ports, **http_uses, **(self._node.ports if self._node else {})}

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's host:port: the one started here, or KAFKA_BOOTSTRAP_SERVERS."""
        return self._node.bootstrap_servers if self._node else str(self.settings.kafka_bootstrap_servers)

    @property
    def log_dir(self) -> Path:
        """Folder with one `<name>.log` per process."""
        return self.state_dir / "logs"

    @property
    def artifacts_url(self) -> str:
        """The artifact store that the services of this loop share."""
        return str(self.state_dir / "artifacts")

    @property
    def peak_memory_bytes(self) -> int:
        """Most resident memory of all started processes together so far, seen every second; the caller's is not in it."""
        return self._memory.peak_bytes if self._memory else 0

    def start(self) -> Self:
        """Returns when every service is ready. Raises a LocalError, after stopping what had been started."""
        attempts_max = self.settings.free_ports_attempts_max if self._takes_any_ports else 1
        start_on_free_ports(self._start_once, self._use_ports, attempts_max, self._report)
        return self

    def _start_once(self) -> None:
        try:
            self._start()
        except OSError as error:
            self.stop()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FreeDiskSpace(
                    f"The disk that holds {self.state_dir} is full; free some space and start again."
                ) from error
            raise ChooseAnotherFolder(
                f"{error.filename or self.state_dir} cannot be used ({error.strerror}): choose another folder with --state."
            ) from error
        except ReadTheLog:
            self.stop()
            # With ours gone, it says which port another program has taken meanwhile.
            require_free_ports(self._used_ports)
            raise
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        settings = self.settings
        require_disk([self.state_dir, settings.cache_dir], settings.free_disk_bytes_min)
        self._claim = Claim.take(self.state_dir)
        require_free_ports(self._used_ports)
        if self._fresh:
            for name in _OWNED:
                shutil.rmtree(self.state_dir / name, ignore_errors=True)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        kafka = self._node.command(settings, self._report) if self._node else None
        self._processes = Processes(hold=[self._claim.descriptor])
        self._memory = PeakMemory(self._processes.resident_bytes, settings.memory_sample_every_s)
        self._supervisor = Supervisor(self._processes, settings, self._report)
        if kafka is not None:
            self._supervisor.add(kafka)
            self._supervisor.wait_ready([KAFKA])
        else:
            self._require_broker()
        create_topics(self.bootstrap_servers, self.use_case, settings.topics_timeout_s, settings.partitions)
        for name, argv in self._commands.items():
            self._supervisor.add(self._service(name, argv))
        self._supervisor.wait_ready()

    def _require_broker(self) -> None:
        health = BrokerHealth(self.bootstrap_servers, self.settings.health_check_timeout_s)
        if not wait_until(health, self.settings.broker_answer_timeout_s):
            raise CheckTheBroker(
                f"No Kafka broker answers at {self.bootstrap_servers}: start it, correct KAFKA_BOOTSTRAP_SERVERS, "
                "or unset it to have one started here."
            )
        self._report(f"using the broker at {self.bootstrap_servers}")

    def _service(self, name: str, argv: Sequence[str]) -> Command:
        return Command(
            name=name,
            argv=argv,
            env=self.environment(),
            cwd=REPOSITORY_ROOT,
            log=self.log_dir / f"{name}.log",
            is_ready=ServiceHealth(self.addresses[name], self.settings.health_check_timeout_s),
            ready_timeout_s=self.settings.service_ready_timeout_s,
            stop_timeout_s=self.settings.service_stop_timeout_s,
        )

    def environment(self) -> dict[str, str]:
        """What every service of this loop is started with: this process's environment and the process contract's names."""
        # Without bytecode a service takes twice as long to import what it needs, at every restart.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY_ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "DRIFTLOOP_USE_CASE": self.use_case,
            # Services run in another folder: what is relative here must not be so there.
            "DRIFTLOOP_USECASES": os.pathsep.join(
                str(folder.resolve()) for folder in search_path(os.environ.get("DRIFTLOOP_USECASES", ""))
            ),
            "DRIFTLOOP_STATE_DIR": str(self.state_dir / "state"),
            "DRIFTLOOP_ARTIFACTS_URL": self.artifacts_url,
            "DRIFTLOOP_REPLICA": "0",
            **{f"{name.upper()}_ADDRESS": address for name, address in self.addresses.items()},
            **{f"{name.upper()}_HTTP_ADDRESS": address for name, address in self.http_addresses.items()},
        }
        if self._clock_mode is not None:
            environment["DRIFTLOOP_CLOCK_MODE"] = self._clock_mode
        return environment

    def stop(self) -> None:
        """Stops the services in reverse order, then Kafka; gives the folder back. May be called again."""
        if self._supervisor is not None:
            self._report("stopping")
            self._supervisor.stop()
            self._supervisor = None
        if self._memory is not None:
            self._memory.stop()  # the peak stays readable
        if self._processes is not None:
            self._processes.close()
            self._processes = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def wait(self) -> None:
        """Blocks until another thread stops the loop; raises a LocalError when it cannot go on."""
        self._running().wait_failure()

    def wait_ready(self, *names: str) -> None:
        """Returns when the named (or all) processes are ready, for example after `kill`. Raises ReadTheLog."""
        self._running().wait_ready(names or None)

    def kill(self, name: str) -> None:
        """SIGKILL to a service or "kafka"; returns when its end was noticed. It is started again by itself."""
        self._running().kill(name)

    def pids(self) -> dict[str, int]:
        """Process id of each running process, "kafka" among them."""
        return self._processes.pids() if self._processes else {}

    def restarts(self, name: str) -> int:
        """How often a process died and was started again."""
        return self._running().restarts(name)

    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise LookupError("the loop is not started")
        return self._supervisor

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
