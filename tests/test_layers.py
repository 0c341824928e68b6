"""The order of the house: arrows point down only, each library has its places."""

from __future__ import annotations

import ast
from pathlib import Path

import osembed
from tests.conftest import ROOT

SOURCE = ROOT / "src" / "osembed"
# Top to bottom: a module imports only from lines below its own (and its own line where that is a package).
HOUSE = [
    {"cli"},
    {"listing"},
    {"collection"},
    {"arguments"},
    {"migrate"},
    {"opensearch.status"},
    {"doctor", "evaluate", "quantise", "opensearch.drop", "opensearch.collections"},
    {"opensearch.leftovers"},
    {"opensearch.survey"},
    {"several"},
    {"ingest", "search", "audience", "opensearch.export"},
    {"request", "filter_hints"},
    {"refine", "similar", "fetch"},
    {"ranking"},
    {"facets", "sorting", "projection"},
    {"generation", "query", "filters", "metrics", "significance", "opensearch.stored"},
    {"results", "notebook"},
    {"fusion"},
    {"store", "encoders"},
    {"opensearch.coordination", "opensearch.manifests"},
    {"fence"},
    {"joint"},
    {"opensearch.create"},
    {"index", "bulk", "opensearch.names"},
    {"opensearch.permissions", "opensearch.sight"},
    {"journal"},
    {"opensearch.changes", "opensearch.checkpoints"},
    {"opensearch.reads"},
    {"state"},
    {"passage"},
    {"chunk"},
    {"embed"},
    {"schema"},
    {"identity", "vectors"},
    {"paper"},
    {"papers", "metadata", "stream", "presence"},
    {"client"},
    {"models", "node", "opensearch.answers", "opensearch.tls"},
    {"opensearch.trust", "opensearch.curl"},
    {"config", "opensearch.access", "opensearch.patience", "opensearch.refusals"},
    {"address", "opensearch.password_file"},
    {"model_files"},
    {"limits"},
    {"paths", "errors", "mappings"},
]
ALLOWED = {
    "opensearchpy": {"client", "bulk"},
    "torch": {"embed"},
    "sentence_transformers": {"embed"},
    "safetensors": {"embed"},
    "openvino": {"embed"},
    "nncf": {"quantise"},
    "click": {"cli"},
    "rich": {"cli"},
    "tenacity": {"client"},
    "jgo": {"node"},
    "msgspec": {"limits"},
    "psutil": {"node", "presence"},
}


def imports(path: Path) -> set[tuple[str, bool]]:
    """Every import of a file: (dotted name, whether it runs when the module is imported)."""
    tree, found = ast.parse(path.read_text()), set()
    late = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.If) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, id(node) not in late) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module in ("osembed", "osembed.opensearch")
            names = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
            found |= {(name, id(node) not in late) for name in names}
    return found


def room(path: Path) -> str:
    """The top-level name of a file; in `opensearch`, which is looked into, that of the module."""
    return place(["osembed", *path.relative_to(SOURCE).with_suffix("").parts])


def place(parts: list[str]) -> str:
    return ".".join(parts[1:3]) if parts[1] == "opensearch" and len(parts) > 2 else parts[1]


def files() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if path.name != "__init__.py" or path.parent.name not in ("osembed", "opensearch")]


def test_arrows_point_down():
    """A module imports only from rooms below it."""
    floor = {name: number for number, names in enumerate(HOUSE) for name in names}
    assert {room(path) for path in files()} <= set(floor)
    for path in files():
        for name, _ in imports(path):
            if name.startswith("osembed."):
                other = place(name.split("."))
                if other == room(path):
                    continue
                assert floor[other] >= floor[room(path)], f"{room(path)} imports {other}"


def test_libraries_stay_in_their_rooms():
    """opensearch-py, torch, click and others are imported only where they belong."""
    for path in files():
        for name, _ in imports(path):
            library = name.split(".")[0]
            assert library not in ALLOWED or room(path) in ALLOWED[library], f"{room(path)} imports {library}"


def test_heavy_things_come_late():
    """torch is imported at the top of embed's own modules only, which nobody imports at the top; sentence-transformers never."""
    for path in files():
        for name, early in imports(path):
            if early and name.startswith("osembed.embed"):
                assert name == "osembed.embed.tokens" or room(path) == "embed", f"{path.name} imports {name} at the top"
            assert not (early and name.startswith("sentence_transformers"))


def test_no_print_no_exit_no_pickle():
    """The library neither prints nor exits, and reads no pickled files."""
    for path in files():
        text = path.read_text()
        if room(path) != "cli":
            calls = {getattr(node.func, "id", "") for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
            assert "print" not in calls, path
            assert "sys.exit" not in text, path
        for unsafe in ("import pickle", "torch.load", "allow_pickle=True", "trust_remote_code=True", "shelve", "joblib"):
            assert unsafe not in text, path


def test_public_names_are_complete_and_sorted():
    """__all__ is sorted, each name can be had and is documented."""
    assert osembed.__all__ == sorted(osembed.__all__)
    for name in osembed.__all__:
        assert getattr(osembed, name).__doc__


def test_modules_stay_small():
    """A room that gets crowded is redesigned: no module beyond 400 lines."""
    for path in files():
        assert len(path.read_text().splitlines()) <= 400, path
