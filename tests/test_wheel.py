"""The wheel alone, in an environment without this repository's sources."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import EXAMPLES, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_tree(wheel):
    """Every module, every mapping and the registry: forgetting a package in pyproject.toml is caught."""
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "osembed").rglob("*")
        if path.suffix in (".py", ".toml") or path.name == "py.typed"
    }
    wanted |= {f"osembed/mappings/{path.name}" for path in (ROOT / "mappings").glob("*.json")}
    assert wanted <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_the_wheel_works_alone(wheel, tmp_path, url, name):
    """Installed into an empty environment (its dependencies lent by this one), it shows help, ingests and searches."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, capture_output=True, env=env)
    # Lend the installed dependencies without their .pth files, so that this repository's editable install stays out.
    site = next((environment / "lib").glob("python*")) / "site-packages"
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def osembed(*arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin" / "osembed", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run([python, "-c", "import osembed; print(osembed.__file__)"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert str(site) in where.stdout
    assert "hybrid" in osembed("--help")
    assert "45 indexed" in osembed("ingest", str(EXAMPLES / "corpus.jsonl"), "--collection", name, "--url", url)
    assert "desert ants" in osembed("search", "insects finding home", "--collection", name, "--url", url)
