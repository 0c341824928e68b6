"""The Python of the README and of docs/search.md, run as it stands there: on the example papers, with the real default model."""

from __future__ import annotations

import ast
import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from osembed import Collection
from tests.conftest import EXAMPLES, ROOT, paper

_NETS = "Insecticide-treated nets lower the incidence of malaria in children who sleep under them. "


class Page:
    """Runs the Python of a page. What it calls papers and reviews are collections of this test's own; nothing else is changed."""

    def __init__(self, name: str) -> None:
        self.papers, self.reviews, self._values = name, f"{name}-reviews", dict[str, Any]()

    def run(self, page: str) -> list[Any]:
        """Run a page's one block; return the values of the expressions that stand there for themselves."""
        [block] = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        for said, own in (("papers", self.papers), ("reviews", self.reviews)):
            block = block.replace(f'Collection("{said}")', f'Collection("{own}")').replace(f'also=["{said}"]', f'also=["{own}"]')
        return [value for statement in ast.parse(block).body for value in self._step(statement, page)]

    def _step(self, statement: ast.stmt, page: str) -> list[Any]:
        if isinstance(statement, ast.Expr):
            return [eval(compile(ast.Expression(statement.value), page, "eval"), self._values)]
        exec(compile(ast.Module([statement], []), page, "exec"), self._values)
        return []


@pytest.fixture
def shown(name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The pages' programs, in a folder that has the examples, with the server under test in place of the embedded node."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSEMBED_URL", url)
    return Page(name)


def test_the_readmes_python_runs(shown, tmp_path, capsys):
    """Ingest, search, count, get and export do what the README says, and print what it prints only."""
    summary, (count, chunks, exported) = shown.run("README.md")
    assert (summary.indexed, summary.rejected, summary.models["chunks"]) == (45, 0, "all-MiniLM-L6-v2")
    lines = capsys.readouterr().out
    assert "Path integration and the return journey of desert ants" in lines
    assert 0 < count < 45
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert exported == 45
    assert len(gzip.decompress((tmp_path / "backup.jsonl.gz").read_bytes()).splitlines()) == 45


def test_the_search_pages_python_runs(shown, capsys):
    """Sorting, facets, fields, several collections and similar texts, as docs/search.md shows them."""
    papers, reviews = Collection(shown.papers), Collection(shown.reviews)
    nets = {**paper(1), "title": "Nets", "text": _NETS * 10, "year": 2019, "doi": "10.5555/nets"}
    papers.ingest("examples/corpus.jsonl")
    papers.ingest([nets])
    reviews.ingest([{**paper(2), "title": "Soil carbon: a review", "year": 2020}])
    values, joint, similar = shown.run("docs/search.md")
    assert sum(values.values()) > 0
    assert {hit.collection for hit in joint} == {shown.papers, shown.reviews}
    assert similar[0].id == "p1"
    assert all(hit.meta["year"] >= 2015 for hit in similar)
    assert capsys.readouterr().out == ""
