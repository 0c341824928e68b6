"""The order of the house: arrows point down only, each library has its places."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import osembed
from tests.conftest import ROOT

SOURCE = ROOT / "src" / "osembed"
# Top to bottom: a module imports only from rooms below its own. Inside a room there is no circle.
HOUSE = [
    {"cli"},
    {"listing"},
    {"collection"},
    {"arguments"},
    {"migrate"},
    {"evaluate"},
    {"search"},
    {"ingest"},
    {"opensearch"},
    {"embed"},
    {"passages"},
    {"models"},
    {"papers"},
    {"config"},
    {"address", "stream"},
    {"limits"},
    {"errors", "paths", "mappings"},
]
ALLOWED = {
    "opensearchpy": ("opensearch.client", "opensearch.bulk"),
    "torch": ("embed.load", "embed.openvino", "embed.traced", "embed.native"),
    "sentence_transformers": ("embed.library",),
    "safetensors": ("embed.native.weights",),
    "openvino": ("embed.openvino", "embed.traced"),
    "nncf": ("embed.quantise",),
    "click": ("cli",),
    "rich": ("cli",),
    "tenacity": ("opensearch.client",),
    "jgo": ("opensearch.node",),
    "msgspec": ("limits",),
    "psutil": ("opensearch.node", "opensearch.coordination.heartbeat"),
}
HEAVY = {"torch", "openvino", "nncf", "tokenizers", "sentence_transformers"}


@dataclass(frozen=True)
class Import:
    """One import of a module: what, and whether it runs when the module is imported, inside a function, or only for the type checker."""

    name: str
    when: str


def files() -> dict[str, Path]:
    """Every module by its dotted name below `osembed`; packages whose `__init__` is a docstring are left out."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and (parts[-1] != "__init__" or len(ast.parse(path.read_text()).body) > 1):
            found[name] = path
    return found


def imports(path: Path) -> Iterator[Import]:
    """Yield the imports of a file; a name that is imported from a package counts as a module where it is one."""
    tree = ast.parse(path.read_text())
    inside = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
    types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        when = "types" if id(node) in types else "late" if id(node) in inside else "early"
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield Import(whole if whole.removeprefix("osembed.") in MODULES else node.module, when)


MODULES = files()
IMPORTS = {name: list(imports(path)) for name, path in MODULES.items()}


def own(name: str) -> list[tuple[str, str]]:
    """A module's imports of osembed's own modules: (dotted name below `osembed`, when)."""
    return [(found.name.removeprefix("osembed."), found.when) for found in IMPORTS[name] if found.name.startswith("osembed.")]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(HOUSE) if name.split(".")[0] in rooms)


def test_arrows_point_down():
    """A module imports only from its own room and from rooms below."""
    for name in MODULES:
        for other, _ in own(name):
            same = name.split(".")[0] == other.split(".")[0]
            assert same or floor(other) > floor(name), f"{name} imports {other}"


def test_no_circles():
    """No module imports itself by way of others, not even for its types."""
    TopologicalSorter({name: {other for other, _ in own(name)} for name in MODULES}).prepare()


def loads_heavy(name: str) -> bool:
    """Whether importing a module loads a heavy library, be it through others."""
    reached, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name in reached or name not in MODULES:
            continue
        reached.add(name)
        if any(found.when == "early" and found.name.split(".")[0] in HEAVY for found in IMPORTS[name]):
            return True
        waiting += [other for other, when in own(name) if when == "early"]
    return False


def test_late_imports_have_a_reason():
    """Inside functions osembed's own modules are imported only where they load something heavy; commands also spare the start of others."""
    for name in MODULES:
        for other, when in own(name):
            assert when != "late" or name.startswith("cli.") or loads_heavy(other), f"{name} imports {other} late"


def test_heavy_things_come_late():
    """Neither the library's face nor the command line loads torch; sentence-transformers and OpenVINO load when they are asked for."""
    assert not any(loads_heavy(name) for name in MODULES if floor(name) < floor("embed"))
    for name in MODULES:
        for found in IMPORTS[name]:
            assert found.when != "early" or found.name.split(".")[0] not in HEAVY - {"torch"}, f"{name} imports {found.name} at the top"


def test_libraries_stay_in_their_rooms():
    """opensearch-py, torch, click and others are imported only where they belong."""
    for name in MODULES:
        for found in IMPORTS[name]:
            homes = ALLOWED.get(found.name.split(".")[0], (name,))
            assert any(name == home or name.startswith(f"{home}.") for home in homes), f"{name} imports {found.name}"


def test_no_print_no_exit_no_pickle():
    """The library neither prints nor exits, and reads no pickled files."""
    for name, path in MODULES.items():
        text = path.read_text()
        if not name.startswith("cli"):
            calls = {getattr(node.func, "id", "") for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
            assert "print" not in calls, path
            assert "sys.exit" not in text, path
        for unsafe in ("import pickle", "torch.load", "allow_pickle=True", "trust_remote_code=True", "shelve", "joblib"):
            assert unsafe not in text, path


def test_public_names_are_complete_and_sorted():
    """__all__ is sorted; each name can be had, is documented and defined where it is said to be; type checkers see the same names."""
    assert osembed.__all__ == sorted(osembed.__all__) == dir(osembed)
    for name in osembed.__all__:
        found = getattr(osembed, name)
        assert found.__doc__
        assert found.__module__ == f"osembed.{osembed._HOMES[name]}"
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in checked.body for alias in node.names) == osembed.__all__


def test_importing_the_package_loads_nothing_heavy():
    """Nor do the options that callers make."""
    program = (
        "import sys, osembed; osembed.SearchOptions(), osembed.InputError; print(sorted(set(sys.modules) & {'torch', 'opensearchpy'}))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_public_classes_have_names_of_their_own():
    """No module defines another class, or an alias, under the name of a public one."""
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        defined |= {
            target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)
        }
        for taken in defined & set(osembed.__all__):
            assert osembed._HOMES[taken] == name, f"{name} defines another {taken}"


def test_modules_stay_small():
    """A room that gets crowded is redesigned: no module beyond 400 lines."""
    for path in MODULES.values():
        assert len(path.read_text().splitlines()) <= 400, path
