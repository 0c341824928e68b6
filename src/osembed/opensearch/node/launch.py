"""Start one OpenSearch process with its own folder for settings, log and temporary files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from osembed.opensearch.node.java import Java

_BASICS = {
    "network.host": "127.0.0.1",
    "action.destructive_requires_name": True,
    # With the default percentages a large, well-filled disk would stop writes although it has much free space.
    "cluster.routing.allocation.disk.watermark.low": "500mb",
    "cluster.routing.allocation.disk.watermark.high": "400mb",
    "cluster.routing.allocation.disk.watermark.flood_stage": "300mb",
}


def launch_node(
    home: Path,
    java: Java,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    files: Path | None = None,
    options: Sequence[str] | None = None,
) -> psutil.Popen:
    """Start a node that listens on 127.0.0.1 only, and return its process.

    Args:
        home: the OpenSearch distribution.
        java: the Java runtime.
        folder: the node's folder for data, configuration, log and temporary files.
        settings: for opensearch.yml, in addition to those that all nodes share.
        files: a folder of further configuration files, such as certificates.
        options: Java options that replace those that OpenSearch 3 needs.
    """
    config, scratch = config_of(folder), folder / "tmp"
    shutil.rmtree(config, ignore_errors=True)
    shutil.copytree(home / "config", config)
    if files:
        shutil.copytree(files, config, dirs_exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    own = {**_BASICS, "path.data": str(folder / "data"), "path.logs": str(folder), **settings}
    (config / "opensearch.yml").write_text(json.dumps(own, indent=1))  # YAML is a superset of JSON, so JSON needs no extra quoting
    # Log to the console only: osembed redirects it to one file, which is truncated at each start.
    (config / "log4j2.properties").write_text(
        "status = error\nappender.console.type = Console\nappender.console.name = console\n"
        "appender.console.layout.type = PatternLayout\nappender.console.layout.pattern = [%d{ISO8601}][%p][%c{1}] %m%n\n"
        "rootLogger.level = info\nrootLogger.appenderRef.console.ref = console\n"
    )
    with log_of(folder).open("wb") as log:
        return psutil.Popen(
            _command(java, home, config, scratch, agent_options(home) if options is None else options),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def config_of(folder: Path) -> Path:
    """Return the configuration folder of a node's folder. It is on the node's command line, which identifies the process."""
    return folder / "config"


def log_of(folder: Path) -> Path:
    """Return the log file in a node's folder."""
    return folder / "node.log"


def agent_options(home: Path) -> list[str]:
    """Return the Java options that OpenSearch 3 needs. Its agent replaces the security manager, which Java removed."""
    return [
        f"-javaagent:{home}/agent/opensearch-agent.jar",
        "--add-opens=java.base/java.nio=org.apache.arrow.memory.core,ALL-UNNAMED",
        "-Dorg.apache.lucene.store.MMapDirectory.sharedArenaMaxPermits=1",
    ]


def _command(java: Java, home: Path, config: Path, scratch: Path, special: Sequence[str]) -> list[str]:
    heap = os.environ.get("OSEMBED_NODE_HEAP", "1g")
    options = [
        f"-Xms{heap}",
        f"-Xmx{heap}",
        "-XX:+UseG1GC",
        "-XX:+ExitOnOutOfMemoryError",
        f"-Djava.io.tmpdir={scratch}",
        f"-Dopensearch.path.home={home}",
        f"-Dopensearch.path.conf={config}",
        "-Dopensearch.distribution.type=zip",
        "-Dopensearch.bundled_jdk=false",
        *special,
        "-Dio.netty.noUnsafe=true",
        "-Dio.netty.noKeySetOptimization=true",
        "-Dio.netty.recycler.maxCapacityPerThread=0",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dlog4j2.disable.jmx=true",
        "-Djava.locale.providers=CLDR,SPI",
    ]
    if java.vector_module:
        options.append("--add-modules=jdk.incubator.vector")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # As root, disable JNA, which OpenSearch needs for its check against root. Another user could not read a folder below /root.
        options += ["-Djna.nosys=true", "-Djna.nounpack=true", "-Djna.boot.library.path=/nonexistent"]
    return [str(java.binary), *options, "-cp", f"{home}/lib/*:{home}/icu/*", "org.opensearch.bootstrap.OpenSearch"]
