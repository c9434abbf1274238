"""Apache Kafka's files: which version, where they are cached, and how Maven fetches them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from actor_risk.local.errors import FetchError, MissingToolError
from actor_risk.local.server import exclusive

KAFKA_VERSION = "4.1.1"
"""The pinned release: KRaft only, and the last line whose broker runs on Java 17."""

JAVA_VERSION_MIN = 17
_FETCH_TIMEOUT_S = 300
_LOGGING_VERSION = "2.24.3"  # the log4j that this Kafka brings, for its bridge from slf4j

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>actor-risk.local</groupId>
  <artifactId>kafka-broker</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{_LOGGING_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def default_cache(project: Path, environ: Mapping[str, str]) -> Path:
    """Where fetched files are kept: `ACTOR_RISK_CACHE` if set, else `.local/kafka` of the project."""
    chosen = environ.get("ACTOR_RISK_CACHE")
    return Path(chosen) if chosen else project / ".local" / "kafka"


def fetch_kafka(cache: Path) -> Path:
    """The folder of Kafka's jars under `cache`, fetched by Maven if it is not there yet (43 MB, once).

    Maven's own settings say where from. Safe to call from several processes: the folder appears when complete.
    Raises MissingToolError without Maven or Java, FetchError when Maven fails.
    """
    lib = cache / "lib" / KAFKA_VERSION
    if lib.is_dir():
        return lib
    java()  # Maven runs on it
    with exclusive(cache / "fetch.lock"):
        if not lib.is_dir():
            _copy_dependencies(lib)
    return lib


def java() -> str:
    """The `java` program to use: that of `JAVA_HOME`, else the one on PATH.

    Raises MissingToolError if there is none or it is older than Java 17.
    """
    advice = f"install a Java runtime, version {JAVA_VERSION_MIN} or newer, or set KAFKA_BOOTSTRAP_SERVERS to a broker"
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if program is None:
        raise MissingToolError(f"Kafka needs Java, which was not found: {advice}")
    told = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version.group(1)) < JAVA_VERSION_MIN:
        raise MissingToolError(f"{program} is too old for Kafka {KAFKA_VERSION}: {advice}")
    return program


def _copy_dependencies(lib: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingToolError(
            "fetching Kafka needs Maven (`mvn`), which was not found: install it, "
            "or set KAFKA_BOOTSTRAP_SERVERS to a running broker"
        )
    lib.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=lib.parent) as work:
        pom = Path(work) / "pom.xml"
        pom.write_text(_POM)
        jars = Path(work) / "jars"
        _run_maven([maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"])
        jars.rename(lib)


def _run_maven(command: list[str]) -> None:
    command = [*command, "-DincludeScope=runtime"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"Maven did not fetch Kafka within {_FETCH_TIMEOUT_S} s: try again, or look at its settings"
        ) from error
    if done.returncode != 0:
        raise FetchError(
            f"Maven could not fetch Kafka {KAFKA_VERSION}; can it reach its repository? "
            f"It said:\n{done.stdout[-1500:].strip()}"
        )
