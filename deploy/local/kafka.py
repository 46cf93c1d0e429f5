"""One real Kafka node (KRaft, broker and controller in one JVM) from the locked jars, bound to 127.0.0.1; data survives a stop."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import Progress, TaskID

from deploy.local.errors import ReadTheLog
from deploy.local.health import BrokerHealth
from deploy.local.jars import ensure_jars
from deploy.local.machine import choose_java, require_disk, require_free_ports, rotate_log
from deploy.local.ports import Ports, free_base_port, start_on_free_ports
from deploy.local.processes import Processes
from deploy.local.settings import LocalSettings
from deploy.local.supervisor import Command, Reporter, Supervisor

NAME = "kafka"
# On two cores that the five services need, the optimising compiler and parallel collector cost more than they bring.
FRUGAL = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
log.message.timestamp.type=LogAppendTime
# A typed name makes no topic: those of the registry are created with their settings, others are mistakes.
auto.create.topics.enable=false
# One node: internal topics cannot be replicated, and one partition of each starts fastest.
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A group of one member has nobody to wait for.
group.initial.rebalance.delay.ms=0
# A killed broker is refused as a duplicate of itself until its old session ends: 4 s instead of 9.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
"""

# To standard output, which goes to kafka.log: one file to read, rotated like the others.
_LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1}: %m%n
logger.config.name = org.apache.kafka.common.config
logger.config.level = WARN
logger.state.name = state.change.logger
logger.state.level = WARN
"""


@dataclass(frozen=True)
class KafkaNode:
    """Where one node lives: its folder, ports and log."""

    data_dir: Path
    port: int
    controller_port: int
    log: Path

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def ports(self) -> dict[str, int]:
        return {"Kafka": self.port, "Kafka's controller": self.controller_port}

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "log"

    def command(self, settings: LocalSettings, report: Reporter) -> Command:
        """Fetches jars, formats the storage where it is new, and tells how to run the node.

        Raises InstallJava, ConnectToNetwork, DistrustJar, FreeDiskSpace, InstallTheExtra or ReadTheLog.
        """
        java = choose_java(os.environ, settings.java_version_timeout_s)
        classpath = os.pathsep.join(map(str, _jars(settings, report)))
        self.data_dir.mkdir(parents=True, exist_ok=True)
        properties, log4j = self.data_dir / "server.properties", self.data_dir / "log4j2.properties"
        properties.write_text(
            _PROPERTIES.format(port=self.port, controller_port=self.controller_port, log_dir=self.log_dir.absolute())
        )
        log4j.write_text(_LOG4J)
        run = [str(java), f"-Dlog4j2.configurationFile={log4j.absolute()}", "-cp", classpath]
        if not (self.log_dir / "meta.properties").exists():
            self._format(run, properties, settings)
        return Command(
            name=NAME,
            argv=[
                run[0],
                f"-Xmx{settings.kafka_heap_mib_max}m",
                *FRUGAL,
                *run[1:],
                "kafka.Kafka",
                str(properties.absolute()),
            ],
            env=dict(os.environ),
            cwd=self.data_dir,
            log=self.log,
            is_ready=BrokerHealth(self.bootstrap_servers, settings.health_check_timeout_s),
            ready_timeout_s=settings.kafka_ready_timeout_s,
            stop_timeout_s=settings.kafka_stop_timeout_s,
        )

    def _format(self, run: list[str], properties: Path, settings: LocalSettings) -> None:
        rotate_log(self.log, settings.log_bytes_max)
        # --ignore-formatted: an interrupted format is finished.
        argv = [run[0], *FRUGAL, *run[1:], "kafka.tools.StorageTool", "format"]
        argv += ["--ignore-formatted", f"--cluster-id={cluster_id(self.data_dir)}", f"--config={properties.absolute()}"]
        try:
            with self.log.open("ab") as log:
                subprocess.run(argv, stdout=log, stderr=log, timeout=settings.kafka_ready_timeout_s, check=True)
        except subprocess.SubprocessError as error:
            raise ReadTheLog(f"Kafka's storage in {self.data_dir} could not be formatted: read {self.log}.") from error


def cluster_id(data_dir: Path) -> str:
    """A cluster id (22 characters, URL-safe base64 of 16 bytes) that follows from where the data lie."""
    digest = hashlib.sha256(str(data_dir.absolute()).encode()).digest()
    # Kafka's own ids never begin with a dash.
    return "k" + base64.urlsafe_b64encode(digest[:16]).decode()[1:22]


def _jars(settings: LocalSettings, report: Reporter) -> list[Path]:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task: TaskID | None = None

        def show(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task("Fetching Kafka's jars", total=total)
            bar.update(task, completed=done)
            if done == total:
                report(f"fetched {total} jars of Kafka into {settings.cache_dir}")

        return ensure_jars(settings, show)


def _node(data_dir: Path, port: int, controller_port: int) -> KafkaNode:
    return KafkaNode(data_dir, port, controller_port, data_dir / "kafka.log")


class LocalKafka:
    """A Kafka node of its own, for tests and tools: started on entry, stopped on exit, never an orphan.

    Without `port` it takes any that are free, and others where one is taken before it is bound; the controller's is the one
    after it, unless it is given. Raises a LocalError.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        controller_port: int | None = None,
        settings: LocalSettings | None = None,
        reporter: Reporter = lambda line: None,
    ) -> None:
        self._takes_any_ports = port is None
        if port is None:
            ports = Ports(free_base_port())
            port, controller_port = ports.kafka, ports.controller
        self.node = _node(data_dir, port, controller_port or port + 1)
        self._settings = settings or LocalSettings()
        self._report = reporter
        self._processes: Processes | None = None
        self._supervisor: Supervisor | None = None

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients."""
        return self.node.bootstrap_servers

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        if self._processes is None:
            raise LookupError("Kafka is not started")
        return self._processes.pids()[NAME]

    def kill(self) -> None:
        """SIGKILL to the JVM; returns when its end was noticed. It is started again by itself."""
        self._running().kill(NAME)

    def wait_ready(self) -> None:
        """Returns when the broker answers, for example after `kill`. Raises ReadTheLog."""
        self._running().wait_ready()

    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise LookupError("Kafka is not started")
        return self._supervisor

    def start(self) -> Self:
        """Returns when the broker answers."""
        attempts_max = self._settings.free_ports_attempts_max if self._takes_any_ports else 1
        start_on_free_ports(self._start, self._use_ports, attempts_max, self._report)
        return self

    def _use_ports(self, ports: Ports) -> None:
        self.node = _node(self.node.data_dir, ports.kafka, ports.controller)

    def _start(self) -> None:
        settings = self._settings
        self.node.data_dir.mkdir(parents=True, exist_ok=True)
        require_disk([self.node.data_dir, settings.cache_dir], settings.free_disk_bytes_min)
        require_free_ports(self.node.ports)
        command = self.node.command(settings, self._report)
        try:
            self._processes = Processes()
            self._supervisor = Supervisor(self._processes, settings, self._report)
            self._supervisor.add(command)
            self._supervisor.wait_ready()
        except ReadTheLog:
            self.stop()
            # With ours gone, it says which port another program has taken meanwhile.
            require_free_ports(self.node.ports)
            raise
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the broker in order; its data stay. May be called again."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
