"""`ingest --prune`: what a folder or file has brought in and lost is removed, and nothing else is, whatever else happens."""

from __future__ import annotations

import json
import platform
import signal

import pytest

from osembed.collection import Collection
from osembed.errors import InputError, NoPapersError, PruneError
from osembed.ingest.run import Ingest
from osembed.ingest.spec import CollectionSpec
from osembed.opensearch import manifests
from osembed.opensearch.coordination.journal import Journal
from osembed.opensearch.manifests import Manifests, manifest_keys
from osembed.papers.readers.folders import Root
from tests.conftest import paper, run
from tests.folders import ids, place
from tests.killing import spawn
from tests.proxy import Fault


def test_a_paper_whose_file_is_gone_is_removed_with_its_chunks(collection, small, folder, client):
    collection.ingest(folder, small)
    (folder / "t3.txt").unlink()
    assert collection.ingest(folder).unchanged == 19
    assert "t3" in ids(collection), "unasked nothing is removed"
    summary = collection.ingest(folder, prune=True)
    assert (summary.pruned, summary.pruned_ids, summary.unpruned) == (1, ["t3"], [])
    assert ids(collection) == {f"t{number}" for number in range(20) if number != 3}
    assert client.count(index=f"{collection.name}-chunks", body={"query": {"term": {"paper_id": "t3"}}})["count"] == 0
    assert collection.ingest(folder, prune=True).pruned == 0


def test_lines_that_are_gone_from_a_file_are_removed(collection, small, write):
    collection.ingest(write([paper(number) for number in range(20)]), small)
    assert collection.ingest(write([paper(number) for number in range(1, 20)]), prune=True).pruned_ids == ["p0"]


def test_more_than_a_tenth_is_refused_unless_it_is_named(collection, small, folder):
    """All else is done; nothing is removed in part."""
    collection.ingest(folder, small)
    for number in range(3):
        (folder / f"t{number}.txt").unlink()
    place(folder, 30)
    with pytest.raises(PruneError, match=r"3 of the 21 papers .* more than a tenth.*--max-delete 3") as refused:
        collection.ingest(folder, prune=True)
    assert refused.value.summary.indexed == 1
    assert len(ids(collection)) == 21
    with pytest.raises(PruneError, match="more than --max-delete 2"):
        collection.ingest(folder, prune=True, max_delete=2)
    assert collection.ingest(folder, prune=True, max_delete=3).pruned == 3
    assert len(ids(collection)) == 18


def test_an_empty_folder_prunes_nothing_unless_it_is_named(collection, small, folder):
    """A disk that is not mounted looks like this."""
    collection.ingest(folder, small)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no papers"):
        collection.ingest(folder)
    with pytest.raises(PruneError, match=r"20 of the 20 .* empty.*--max-delete 20"):
        collection.ingest(folder, prune=True)
    assert len(ids(collection)) == 20
    assert collection.ingest(folder, prune=True, max_delete=20).pruned == 20
    assert ids(collection) == set()
    folder.rmdir()
    with pytest.raises(InputError, match="There is no"):
        collection.ingest(folder, prune=True, max_delete=20)


def test_an_empty_folder_creates_no_collection(collection, tmp_path, client):
    with pytest.raises(NoPapersError):
        collection.ingest(tmp_path, prune=True)
    assert not client.indices.exists(index=f"{collection.name}*", params={"allow_no_indices": "false"})


@pytest.mark.parametrize("spoil", ["loop", "damaged", "line"])
def test_what_was_not_read_is_not_gone(spoil, collection, small, folder):
    """One place that cannot be read may hold what seems to be missing."""
    (folder / "more.jsonl").write_text('{"id": "m0", "title": "t", "text": "' + "word " * 120 + '"}\n', encoding="utf-8")
    collection.ingest(folder, small)
    (folder / "t0.txt").unlink()
    if spoil == "loop":
        (folder / "t0.txt").symlink_to(folder / "t0.txt")
    elif spoil == "damaged":
        (folder / "more.txt.gz").write_bytes(b"\x1f\x8b\x08\x00 no such thing")
    else:
        (folder / "more.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(PruneError, match="was not read completely"):
        collection.ingest(folder, prune=True)
    assert {"t0", "m0"} <= ids(collection)


@pytest.mark.parametrize("change", ["moved", "replaced", "away"])
def test_what_changes_while_the_rest_is_read_prunes_nothing(change, collection, small, folder, monkeypatch):
    """A line may be moved from a file that is read late into one that was read early."""
    (folder / "a.jsonl").write_text(json.dumps(paper(1, id="early")))
    (folder / "z.jsonl").write_text("\n".join(json.dumps(paper(number, id=f"z{number}")) for number in range(2)))
    collection.ingest(folder, small)
    lines = (folder / "z.jsonl").read_text().splitlines()
    refreshed = Ingest._refresh

    def after_reading(self):
        monkeypatch.setattr(Ingest, "_refresh", refreshed)
        if change == "moved":
            (folder / "a.jsonl").write_text("\n".join([json.dumps(paper(1, id="early")), lines[0]]))
        elif change == "replaced":
            place(folder, 40)
        else:
            folder.rename(folder.with_name("away"))
        refreshed(self)

    (folder / "z.jsonl").write_text(lines[1])
    monkeypatch.setattr(Ingest, "_refresh", after_reading)
    with pytest.raises(PruneError, match=r"was not read completely \(.*(changed while|There is no)"):
        collection.ingest(folder, prune=True)
    assert "z0" in ids(collection)


def test_what_is_rejected_now_is_not_gone(collection, small, folder):
    """A paper that has become too short, or another encoding, stays in its last good version."""
    collection.ingest(folder, small)
    (folder / "t1.txt").write_text("Title\nshort", encoding="utf-8")
    (folder / "t2.txt").write_bytes(b"Title\n\xff\xfe word" * 200)
    (folder / "t3.txt").write_text("", encoding="utf-8")
    summary = collection.ingest(folder, prune=True)
    assert (summary.rejected, summary.pruned) == (3, 0)
    assert {"t1", "t2", "t3"} <= ids(collection)


def test_a_rejected_record_that_no_id_names_may_be_what_is_gone(collection, small, folder, write):
    """Its content names it, and that has changed."""
    records = [{key: value for key, value in paper(number).items() if key != "id"} for number in range(20)]
    collection.ingest(write(records), small)
    records[0]["text"] = "cut short"
    with pytest.raises(PruneError, match=r"papers\.jsonl:1: fewer than 100 words"):
        collection.ingest(write(records), prune=True)
    assert len(ids(collection)) == 20


def test_files_whose_name_is_not_their_id_are_not_taken_for_gone(collection, small, folder):
    collection.ingest(folder, small, names={"id": "doi"})
    (folder / "t2.txt").write_bytes(b"Title\n\xff\xfe word" * 200)
    with pytest.raises(PruneError, match="not UTF-8"):
        collection.ingest(folder, names={"id": "doi"}, prune=True)
    assert len(ids(collection)) == 20


def test_only_what_this_root_brought_in_is_removed(collection, small, folder, tmp_path, write):
    other = tmp_path / "others"
    other.mkdir()
    place(other, 0)
    place(other, 50)
    collection.ingest(folder, small)
    collection.ingest(other)
    collection.ingest([paper(1, id="t1", title="corrected")])  # from Python
    collection.ingest(write([paper(60)]))
    for number in range(3):
        (folder / f"t{number}.txt").unlink()
    summary = collection.ingest(folder, prune=True, max_delete=5)
    assert summary.pruned_ids == ["t2"]
    assert sorted((why.partition(" has")[0], names) for why, names in summary.spared_ids.items()) == [
        (str(other), ["t0"]),
        ("what is stored came from elsewhere since", ["t1"]),
    ]
    assert {"t0", "t1", "t50", "p60"} <= ids(collection)


def test_one_folder_under_several_names_is_one_root(collection, small, folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    collection.ingest(folder, small)
    place(folder, 30)
    collection.ingest(tmp_path / "link")
    (folder / "t0.txt").unlink()
    (folder / "t30.txt").unlink()
    monkeypatch.chdir(folder)
    assert sorted(collection.ingest(".", prune=True, max_delete=2).pruned_ids) == ["t0", "t30"]


def test_another_machines_folder_of_that_name_is_another(collection, small, folder, monkeypatch):
    collection.ingest(folder, small)
    (folder / "t0.txt").unlink()
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert collection.ingest(folder, prune=True).pruned == 0
    monkeypatch.undo()
    (folder / "t1.txt").unlink()
    summary = collection.ingest(folder, prune=True)
    assert (summary.pruned_ids, list(summary.spared_ids.values())) == (["t0"], [["t1"]])


def test_exported_papers_belong_to_where_they_came_from(collection, small, folder, tmp_path):
    collection.ingest(folder, small)
    backup = tmp_path / "backup.jsonl"
    collection.export(backup)
    assert collection.ingest(backup).unchanged == 20
    lines = backup.read_text().splitlines(keepends=True)
    backup.write_text("".join(lines[1:]))
    assert collection.ingest(backup, prune=True).pruned == 0
    (folder / "t0.txt").unlink()
    assert collection.ingest(folder, prune=True).pruned == 1


def test_papers_without_an_id_that_have_changed_leave_no_old_version(collection, small, write):
    """Their content names them."""
    records = [{key: value for key, value in paper(number).items() if key != "id"} for number in range(20)]
    collection.ingest(write(records), small)
    records[0]["text"] += " One more sentence."
    summary = collection.ingest(write(records), prune=True)
    assert (summary.indexed, summary.pruned) == (1, 1)
    assert len(ids(collection)) == 20


def test_several_roots_are_judged_one_by_one(collection, small, folder, write):
    lines = [paper(number, id=f"l{number}") for number in range(20)]
    collection.ingest([folder, write(lines)], small)
    (folder / "t0.txt").unlink()
    with pytest.raises(PruneError, match=r"papers\.jsonl was pruned: 12 of the 20") as refused:
        collection.ingest([folder, write(lines[12:])], prune=True)
    assert refused.value.summary.pruned_ids == ["t0"]
    assert len(ids(collection)) == 39


def test_what_has_no_root_is_nothing_to_prune_by(collection, folder):
    for given in ("-", folder / "t0.txt", [paper(1)]):
        with pytest.raises(InputError, match="cannot be used to prune"):
            collection.ingest(given, prune=True)


def test_a_new_paper_that_another_run_brought_in_meanwhile_stays(collection, small, folder, client, monkeypatch):
    """The manifest is compared as it was when this run began."""
    collection.ingest(folder, small)
    (folder / "t0.txt").unlink()
    known = Manifests.read

    def read(self, root):
        yield from known(self, root)
        if not (folder / "t40.txt").exists():
            path = place(folder, 40)
            Collection(collection.name, collection._url).ingest(folder)
            path.unlink()

    monkeypatch.setattr(Manifests, "read", read)
    assert collection.ingest(folder, prune=True).pruned_ids == ["t0"]
    assert "t40" in ids(collection)


def test_long_manifests_have_several_segments(collection, small, folder, client, monkeypatch):
    monkeypatch.setattr(manifests, "_SEGMENT", 7)
    monkeypatch.setattr("osembed.ingest.intake._WINDOW_PAPERS", 5)
    collection.ingest(folder, small)
    journal, root = Journal(client), Root.of(str(folder))
    assert [len(part) for part in Manifests(client, collection.name).read(root)] == [7, 7, 6]
    (folder / "t0.txt").unlink()
    assert collection.ingest(folder, prune=True).pruned == 1
    assert sum(len(part) for part in Manifests(client, collection.name).read(root)) == 19
    keys = manifest_keys(journal, collection.name)
    collection.drop()
    assert len(keys) == 4
    assert not journal.read_several(keys)


def test_a_killed_run_has_named_what_it_may_have_written(name, models, folder, collection, proxy):
    """Killed once the papers are written: the next run prunes one whose file is gone by then."""
    process: list = []

    def rule(request):
        commits = "_bulk" in request.path and b'"chunk_count"' in request.body
        return Fault("unanswered", after=process[0].kill) if commits else None

    proxy.rules.append(rule)
    process.append(spawn("ingest", str(folder), "--collection", name, "--model", str(models.bert), "--url", proxy.url))
    assert process[0].wait(120) == -signal.SIGKILL
    (folder / "t0.txt").unlink()
    assert collection.ingest(folder, CollectionSpec(str(models.bert), str(models.bert)), prune=True).pruned_ids == ["t0"]
    assert ids(collection) == {f"t{number}" for number in range(1, 20)}


def test_from_the_shell(collection, small, folder, name, url, models):
    env = {"OSEMBED_URL": url}
    assert run("ingest", str(folder), "--collection", name, "--model", str(models.bert), env=env).returncode == 0
    for number in range(4):
        (folder / f"t{number}.txt").unlink()
    refused = run("ingest", str(folder), "--collection", name, "--prune", env=env)
    assert refused.returncode == 1
    assert "16 unchanged" in refused.stdout
    assert "--max-delete 4" in refused.stderr
    done = run("ingest", str(folder), "--collection", name, "--prune", "--max-delete", "4", env=env)
    assert (done.returncode, "pruned 4: t0, t1, t2, t3" in done.stdout) == (0, True)
    assert run("ingest", str(folder), "--collection", name, "--prune", env={**env, "OSEMBED_MAX_DELETE": "9"}).returncode == 2
