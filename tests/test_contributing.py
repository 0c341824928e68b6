"""The recipes of CONTRIBUTING.md, followed: their code is run as it stands there."""

from __future__ import annotations

import gzip
import re

import pytest

from osembed import Record, SearchOptions
from osembed.errors import InputError
from osembed.limits import FUSIONS, LIMITS
from osembed.papers.paper import Paper, to_paper
from osembed.papers.readers.kinds import READERS
from osembed.papers.readers.reader import Reader
from osembed.papers.records import Rejected
from osembed.search.fusion import NORMALISERS, fuse_rankings
from tests.conftest import ROOT, TEXT, paper

RIS = f"""TY  - JOUR
ID  - ants-1
TI  - Desert ants
AB  - {TEXT * 6}
PY  - 2016
ER  -

TY  - JOUR
ID  - bees-1
TI  - Bees
ER  -
"""


def follow(title: str) -> None:
    """Run the code of a recipe."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    [block] = re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)
    exec(compile(block, "CONTRIBUTING.md", "exec"), {"__name__": "recipe"})


@pytest.fixture
def ris(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of the recipe, for one test."""
    before = dict(READERS)
    follow("Add a file reader")
    assert set(READERS) - set(before) == {".ris"}
    monkeypatch.setitem(READERS, ".ris", READERS.pop(".ris"))


@pytest.fixture
def borda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fusion of the recipe, and its name among those of the options, for one test."""
    follow("Add a search step")
    monkeypatch.setitem(NORMALISERS, "borda", NORMALISERS.pop("borda"))
    monkeypatch.setitem(LIMITS, "fusion", (*FUSIONS, "borda"))


def test_the_readers_recipe_reads_a_file(tmp_path, ris):
    """A file of the new kind is read, packed or not, alone or in a folder, and becomes papers."""
    (tmp_path / "library.ris").write_text(RIS)
    (tmp_path / "more.ris.gz").write_bytes(gzip.compress(RIS.replace("-1", "-2").encode()))
    reader = Reader([str(tmp_path)])
    records = list(reader)
    assert all(isinstance(record, Record) for record in records)
    assert [record.fields["id"] for record in records] == ["ants-1", "bees-1", "ants-2", "bees-2"]
    assert records[0].source == f"{tmp_path.name}/library.ris:6"
    assert reader.bytes_read == reader.bytes_total > 0
    found = to_paper(records[0], {}, 100)
    assert isinstance(found, Paper)
    assert (found.id, found.title, found.meta["year"]) == ("ants-1", "Desert ants", "2016")


def test_the_readers_recipe_rejects_what_it_cannot_read(tmp_path, ris):
    """A record in another encoding is put aside and the next one read; a damaged file costs what follows."""
    (tmp_path / "library.ris").write_bytes(RIS.replace("Desert", "Désert").encode("latin-1"))
    first, second = Reader([str(tmp_path / "library.ris")])
    assert isinstance(first, Rejected)
    assert (first.reason, first.fields["id"], second.fields["id"]) == ("not UTF-8", "ants-1", "bees-1")
    (tmp_path / "short.ris").write_text(RIS.removesuffix("ER  -\n"))
    assert [record.fields["id"] for record in Reader([str(tmp_path / "short.ris")])] == ["ants-1", "bees-1"]
    assert isinstance(list(Reader([str(tmp_path / "short.ris")]))[-1], Rejected)
    (tmp_path / "broken.ris.gz").write_bytes(gzip.compress(RIS.encode())[:-12])
    assert isinstance(list(Reader([str(tmp_path / "broken.ris.gz")]))[-1], Rejected)


def test_without_the_recipe_the_kind_is_unknown(tmp_path):
    """The recipe's test leaves nothing behind."""
    (tmp_path / "library.ris").write_text(RIS)
    with pytest.raises(InputError, match="is not a kind of file that osembed reads"):
        Reader([str(tmp_path / "library.ris")])


def test_the_steps_recipe_fuses(borda):
    """The new fusion can be asked for, and ranks by what it was made for: places, not scores."""
    options = SearchOptions(fusion="borda", weights=(0.5, 0.5))
    fused = fuse_rankings([{"a": 90.0, "b": 2.0}, {"b": 0.9, "c": 0.8, "a": 0.1, "d": 0.05}], options.fusion, options.weights)
    assert [(one.id, one.score) for one in fused] == [("a", 0.75), ("b", 0.75), ("c", 0.375), ("d", 0.125)]


@pytest.mark.parametrize("level", ["both", "papers", "chunks"])
def test_the_steps_recipe_ranks_on_every_level(collection, small, write, borda, level):
    """A fusion that the server does not know is computed here; a request for other programs says so."""
    collection.ingest(write([paper(number) for number in range(6)]), small)
    result = collection.search("species 3", fusion="borda", level=level)
    assert (result.fusion, result.degraded, len(result)) == ("borda", False, 6)
    assert [hit.score for hit in result] == sorted((hit.score for hit in result), reverse=True)
    assert all(0 < hit.score <= 1 for hit in result)
    assert collection.request("species 3", fusion="borda", level=level)["notices"][0].startswith("OpenSearch has no fusion called borda.")


def test_without_the_recipe_the_fusion_is_refused():
    """Options name what there is."""
    with pytest.raises(InputError, match="min_max, l2, z_score or rrf"):
        SearchOptions(fusion="borda")


def test_contributing_is_short():
    """A page to read before the first change."""
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 120
