"""Papers in other languages: found by their own words, and moved to another analyzer with their vectors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osembed.collection import Collection
from osembed.errors import InputError
from osembed.migrate.proof.verdict import GateOptions
from osembed.opensearch import indexes

PAPERS = {
    "german": ("Die Wälder und ihre Bäume", "Die Forscher untersuchten Bäume in den Wäldern am Rande großer Häuser.", "Wald Baum Haus"),
    "portuguese": (
        "Correntes marinhas",
        "Os investigadores mediram correntes e estudaram animais marinhos nas ilhas.",
        "corrente estudar animal",
    ),
    "arabic": ("البحار", "قاس الباحثون درجة حرارة البحار في السنوات الأخيرة ودرسوا الأسماك", "باحث"),
    "chinese": ("海水温度", "本研究表明，海水温度在过去几十年中显著上升。", "温度上升"),
    "japanese": ("海水の温度", "研究の結果、海水の温度が上昇したことを示す。", "海水温度"),
}


def record(language: str, key: str = "p") -> dict[str, str]:
    title, text, _ = PAPERS[language]
    return {"id": f"{key}-{language}", "title": title, "text": f"{text} " * 12}


@pytest.mark.parametrize("language", list(PAPERS))
def test_words_are_found_in_their_own_forms(language, collection, small, write, client):
    """An analyzer of the language strips endings that the English one keeps; scripts without spaces are found by their parts."""
    collection.ingest(write([record(language)]), replace(small, language=language), min_words=10)
    mapping = client.indices.get_mapping(index=f"{collection.name}*")
    assert {fields["mappings"]["properties"]["content"]["analyzer"] for fields in mapping.values()} == {
        {"chinese": "cjk", "japanese": "cjk"}.get(language, language)
    }
    for level in ("papers", "chunks"):
        assert [hit.id for hit in collection.search(PAPERS[language][2], mode="lexical", level=level).hits] == [f"p-{language}"]


def test_another_language_is_refused_and_migrated_to_with_the_vectors(collection, small, write, client):
    """It is no part of the identity: the vectors are carried over."""
    collection.ingest(write([record("german")]), replace(small, language="english"), min_words=10)
    assert collection.search("Wald", mode="lexical").hits == ()
    with pytest.raises(InputError, match="migrate --language german"):
        collection.ingest(write([record("german")]), replace(small, language="de"), min_words=10)
    before = _vectors(client, collection)
    done = collection.migrate(
        spec=replace(small, paper_model=None, chunk_model=None, language="de"), gate=GateOptions(skip=True), gentle=False
    )
    assert done.phase == "swapped"
    assert _vectors(client, collection) == before
    assert [hit.id for hit in collection.search("Wald", mode="lexical").hits] == ["p-german"]
    assert collection.ingest(write([record("german")]), replace(small, language="german"), min_words=10).unchanged == 1
    assert collection.verify(full=True).passed


def _vectors(client, collection):
    found = {}
    for target in indexes.resolve(client, collection.name).values():
        client.indices.refresh(index=target.index)
        hits = client.search(index=target.index, body={"size": 100}, search_pipeline="_none")["hits"]["hits"]
        found |= {(target.meta.level, hit["_id"]): hit["_source"]["embedding"] for hit in hits}
    return found


def test_the_language_is_found_in_the_first_papers_and_kept(small, write, url, name):
    said = []
    collection = Collection(name, url, report=said.append)
    collection.ingest(write([record("german", f"p{number}") for number in range(3)]), small, min_words=10)
    assert any("The papers are German" in text for text in said)
    assert {row.analyzer for row in collection.status()} == {"german"}
    collection.ingest(write([record("portuguese")]), min_words=10)
    assert collection.search("Wald", mode="lexical").hits


def test_a_model_that_cannot_read_the_script_is_warned_of(write, url, name):
    """all-MiniLM-L6-v2 knows few Japanese signs."""
    said = []
    summary = Collection(name, url, report=said.append).ingest(write([record("japanese")]), min_words=10)
    assert summary.unknown > 0.1 * summary.tokens
    assert any("not trained for this script" in text for text in said)
