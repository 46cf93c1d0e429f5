"""Writes kafka.lock from what Maven itself resolves; run by a maintainer who changes Kafka's version, never at run time."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from deploy.local.jars import LOCK_PATH, Jar

KAFKA_VERSION = "4.3.1"
LOG4J_VERSION = "2.25.4"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>driftloop</groupId><artifactId>kafka-lock</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
    <!-- Kafka logs through slf4j 1.7; without a binding it logs nothing. -->
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{LOG4J_VERSION}</version></dependency>
  </dependencies>
</project>
"""


def resolve_with_maven(folder: Path) -> list[Jar]:
    """All runtime jars of the pom above, with sha256. Raises CalledProcessError when Maven fails."""
    (folder / "pom.xml").write_text(_POM)
    subprocess.run(
        [
            "mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime",
            "-Dmdep.useRepositoryLayout=true", "-DoutputDirectory=jars",
        ],
        cwd=folder,
        check=True,
    )  # fmt: skip
    return sorted(
        (_jar_at(path.relative_to(folder / "jars"), path) for path in (folder / "jars").rglob("*.jar")), key=str
    )


def _jar_at(relative: Path, path: Path) -> Jar:
    *group, artifact, version, _file = relative.parts
    return Jar(".".join(group), artifact, version, hashlib.sha256(path.read_bytes()).hexdigest())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        jars = resolve_with_maven(Path(folder))
    header = "# Kafka's jars as Maven resolves them: group:artifact:version sha256. Rewrite with: python -m deploy.local.relock\n"
    LOCK_PATH.write_text(header + "".join(f"{jar.coordinate} {jar.sha256}\n" for jar in jars))


if __name__ == "__main__":
    main()
