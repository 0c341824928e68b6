"""The documentation is under test: what it shows exists, and what exists is shown."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import osembed
from osembed.cli.main import cli
from tests.conftest import EXAMPLES, ROOT
from tests.test_layers import HOUSE, SOURCE

README = (ROOT / "README.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> dict[str, click.Command]:
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, (*prefix, name))
        found[" ".join((*prefix, name))] = command
    return found


def test_every_command_is_in_the_readme_and_the_other_way_round():
    """Each command has its place; no line shows one that does not exist."""
    shown = set(re.findall(r"(?:^|`|\| )osembed ([a-z]+)", README, re.MULTILINE))
    assert shown <= set(cli.commands)
    assert set(cli.commands) <= shown


def test_every_option_shown_exists():
    """Options of the README and the docs are real ones."""
    known = {
        name for command in commands(cli).values() for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    for page in PAGES:
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()):
            assert name in known | {"--help", "--wait", "--fail-with-body"}, f"{page.name}: {name}"


def test_every_command_and_option_has_help():
    """No option without a sentence."""
    for name, command in commands(cli).items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_links_lead_somewhere():
    """Relative links and named scripts exist."""
    for page in PAGES:
        for target in re.findall(r"\]\(((?!http)[^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    for script in ("api", "demo", "test", "check", "setup"):
        assert (ROOT / "scripts" / script).stat().st_mode & 0o111


def test_every_module_named_exists():
    """Source files that the design and the recipes name stand where they say, tests and benchmarks too."""
    made_by_a_recipe = {"papers/readers/ris.py"}
    for name in {*re.findall(r"`([\w./-]+\.py)`", DESIGN + CONTRIBUTING)} - made_by_a_recipe:
        place = ROOT / "tests" if name.startswith("test_") else ROOT if name.startswith(("tests/", "benchmarks/")) else SOURCE
        assert (place / name).is_file(), name
    for name in re.findall(r"[\w./-]+\.py\b", re.sub(r"```.*?```", "", DESIGN, flags=re.DOTALL)):
        assert f"`{name}`" in DESIGN, f"{name} is not marked as a file"
    for name in re.findall(r"[\w./-]+\.py\b", "".join(re.findall(r"```.*?```", DESIGN, re.DOTALL))):
        assert (SOURCE / name).is_file(), name


def test_imports_that_are_written_down_can_be_made():
    """Pages, and programs that tests and benchmarks hand to other processes, import what there is."""
    files = [*PAGES, *(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    lines = {line for file in files for line in re.findall(r"from (osembed[\w.]*) import (\w+)", file.read_text())}
    assert len(lines) > 100
    for module, name in lines:
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"{module} {name}"


def test_every_folder_named_exists():
    """The same of folders of the source."""
    for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*)/`", DESIGN):
        assert (SOURCE / name).is_dir() or (ROOT / name).is_dir(), name


def test_the_map_names_every_room_in_its_order():
    """The rooms of the map are those that the test of the layers orders, top to bottom."""
    table = DESIGN.split("## The map")[1].split("\n## ")[0]
    rows = [re.findall(r"`(\w+)(?:/|\.py)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]
    assert [set(row) for row in rows] == HOUSE


def test_the_glossary_explains_each_word_once():
    """One line per term, one sentence each."""
    entries = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", DESIGN.split("## Glossary")[1], re.MULTILINE)
    terms = [term for term, _ in entries]
    assert len(terms) == len(set(terms)) > 40
    for term, text in entries:
        assert re.fullmatch(r"(?:(?!\. ).)+\.", text), term


def test_the_python_page_is_what_its_program_prints():
    """docs/api.md is made of signatures and docstrings as they are now: scripts/api > docs/api.md."""
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "api"], capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout
    assert printed == API


def test_the_python_page_describes_everything_public():
    """Every name of `osembed`, and every field of its options and results."""
    for name in osembed.__all__:
        assert re.search(rf"\b{name}\b", API), name
    rows = re.findall(r"^\| (`\w+` \| .*) \|$", API, re.MULTILINE)
    assert len(rows) > 200
    for row in rows:
        assert row.rpartition("|")[2].strip(), row


def test_the_readme_is_a_door():
    """Not a book."""
    assert len(README.splitlines()) <= 200


def test_python_shown_compiles():
    """The README's Python is Python."""
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")


@pytest.mark.parametrize(
    "name",
    ["pyproject.toml", "mappings", "docker-compose.yml", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "examples", "benchmarks", "docs"],
)
def test_top_level(name):
    """The top level is as promised."""
    assert (ROOT / name).exists()


def test_packages_are_listed():
    """Every package folder stands in pyproject.toml."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT / "src").parts) for path in (ROOT / "src").rglob("__init__.py")}
    assert listed == found | {"osembed.mappings"}


def test_examples_are_as_described():
    """At least 40 papers over a dozen topics, some long; folder and file agree; at least 40 graded queries."""
    import json

    papers = [json.loads(line) for line in (EXAMPLES / "corpus.jsonl").read_text().splitlines()]
    assert len(papers) >= 40
    assert len({paper["metadata"]["topic"] for paper in papers}) >= 12
    words = [len(paper["text"].split()) for paper in papers]
    assert sum(count > 2000 for count in words) >= 3
    assert min(words) >= 140
    for paper in papers:
        title, text = (EXAMPLES / "papers" / f"{paper['_id']}.txt").read_text().split("\n\n", 1)
        assert (title, text.strip()) == (paper["title"], paper["text"].strip())
    grades = {line.split("\t")[2] for line in (EXAMPLES / "qrels" / "test.tsv").read_text().splitlines()[1:]}
    assert grades == {"1", "2"}


def test_no_machine_or_registry_is_named():
    """No absolute path of a machine, no registry host, in any tracked text."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    hosts = ["py" + "pi.org", "python" + "hosted", "maven" + ".org", "npm" + "js.org", "/work" + "/main"]
    for name in files:
        path = Path(ROOT / name)
        if path.suffix in (".py", ".md", ".toml", ".yml", ".json", "") and path.is_file():
            text = path.read_text(errors="replace")
            assert not any(host in text for host in hosts), name


def test_every_fault_names_a_test_that_exists():
    """docs/faults.md is a table of tests, not of intentions."""
    sources = {path.name: path.read_text() for path in (ROOT / "tests").glob("test_*.py")}
    named = set(re.findall(r"`(test_[a-z0-9_]+(?:\.py)?)`", (ROOT / "docs" / "faults.md").read_text()))
    assert len(named) > 60
    for name in named:
        assert name in sources or any(f"def {name}(" in text for text in sources.values()), name


def test_every_variable_is_documented():
    """Each OSEMBED_ variable that the source reads by name stands in docs/settings.md or is an option's."""
    options = {f"OSEMBED_{name.lstrip('-').replace('-', '_').upper()}" for c in commands(cli).values() for p in c.params for name in p.opts}
    shown = (ROOT / "docs" / "settings.md").read_text()
    for path in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"\"(OSEMBED_[A-Z_]+)\"", path.read_text()):
            assert name in shown or name in options, f"{path.name}: {name}"
