"""`osembed watch`: a folder is followed; files are read once they stop changing, whatever happens to folder, server and collection."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from osembed.collection import Collection
from osembed.errors import DroppedError, InputError
from osembed.ingest import watch
from osembed.ingest.watch import Changes, Folder
from tests.conftest import paper
from tests.folders import ids, place
from tests.forking import Command
from tests.proxy import Fault, FaultProxy

SETTLE_S = 0.3


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def follow(name, url, small, folder, said) -> Iterator[Callable]:
    """Follow the folder: returns an iterator of what is done."""
    followed = []

    def start(spec=small, address=url, **options):
        collection = Collection(name, address, report=said.append)
        followed.append(collection.watch(folder, spec, settle=SETTLE_S, **options))
        return followed[-1]

    yield start
    for steps in followed:
        steps.close()


def within(seconds: float, steps):
    """The next thing that is done; fails where nothing is."""
    timer = threading.Timer(seconds, lambda: signal.raise_signal(signal.SIGALRM))
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("nothing was done"))
    timer.start()
    try:
        return next(steps)
    finally:
        timer.cancel()
        signal.signal(signal.SIGALRM, before)


def test_new_and_changed_files_are_ingested_and_no_others_read(follow, folder, collection):
    steps = follow()
    assert within(60, steps).indexed == 20
    place(folder, 30)
    (folder / "t1.txt").write_text(f"Another title\n{paper(99)['text']}", encoding="utf-8")
    done = within(60, steps)
    while done.indexed < 2:  # each settles at its own time
        done.indexed += within(60, steps).indexed
    assert done.read <= 2
    assert collection.search("Another title", mode="lexical").hits[0].id == "t1"
    assert "t30" in ids(collection)


def test_a_file_that_grows_is_waited_for(tmp_path):
    """Nothing is read while it changes, nor before it has been the same for the time that settles it."""
    root = Folder(tmp_path, 1.0)
    root.take()
    file = tmp_path / "a.txt"
    for size in range(1, 5):
        file.write_text("word " * size)
        assert not root.changes()
        time.sleep(0.4)
    time.sleep(0.7)
    found = root.changes()
    assert found == Changes(frozenset({file}))
    file.write_text("more")
    root.settle(found)
    assert not root.changes()
    time.sleep(1.1)
    assert root.changes() == found, "what changed while it was read is read again"


def test_a_file_that_is_replaced_was_never_gone(tmp_path):
    """Editors delete, then rename."""
    root, file = Folder(tmp_path, 0.5), tmp_path / "a.txt"
    file.write_text("first")
    root.take()
    file.unlink()
    assert not root.changes()
    file.write_text("second")
    time.sleep(0.6)
    assert not root.changes()
    time.sleep(0.6)
    assert root.changes() == Changes(frozenset({file}))


def test_a_file_whose_rights_or_name_alone_change_is_read_again(tmp_path):
    """It may not have been readable before; another file of that size and age may have taken its name."""
    root, file, other = Folder(tmp_path, 0.0), tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("first")
    other.write_text("other")
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    root.take()
    file.chmod(0o600)
    found = root.changes()
    assert found == Changes(frozenset({file}))
    root.settle(found)
    other.rename(file)
    assert root.changes() == Changes(frozenset({file}), frozenset({other}))


def test_a_folder_that_is_moved_in_is_found(follow, folder, tmp_path, collection):
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    place(outside / "deep", 1)
    steps = follow()
    within(60, steps)
    outside.rename(folder / "inside")
    assert within(60, steps).indexed == 1
    assert "inside/deep/t1" in ids(collection)


def test_what_is_gone_stays_unless_it_is_to_be_pruned(follow, folder, collection):
    steps = follow()
    within(60, steps)
    (folder / "t0.txt").unlink()
    time.sleep(3 * SETTLE_S)
    place(folder, 30)
    assert within(60, steps).indexed == 1
    assert "t0" in ids(collection)


def test_pruned_is_what_goes_but_not_everything_at_once(follow, folder, collection, said):
    steps = follow(prune=True)
    within(60, steps)
    (folder / "t0.txt").unlink()
    assert within(60, steps).pruned_ids == ["t0"]
    for path in folder.iterdir():
        path.unlink()
    refused = within(60, steps)
    assert (refused.pruned, len(refused.unpruned)) == (0, 1)
    assert any("19 of the 19 papers" in text for text in said)
    for number in range(1, 20):
        place(folder, number)
    assert within(60, steps).unchanged > 0
    assert len(ids(collection)) == 19


def test_lines_that_go_are_pruned_too(follow, folder, collection):
    lines = [json.dumps(paper(number, id=f"l{number}")) for number in range(5)]
    (folder / "more.jsonl").write_text("\n".join(lines))
    steps = follow(prune=True)
    within(60, steps)
    (folder / "more.jsonl").write_text("\n".join(lines[1:]))
    assert within(60, steps).pruned_ids == ["l0"]


def test_nothing_is_pruned_while_a_file_is_half_written(follow, folder, collection):
    lines = [json.dumps(paper(number, id=f"l{number}")) for number in range(5)]
    (folder / "more.jsonl").write_text("\n".join(lines))
    steps = follow(prune=True)
    within(60, steps)
    writing = threading.Event()

    def write_slowly():
        while not writing.wait(SETTLE_S / 3):
            (folder / "more.jsonl").write_text("\n".join(lines[:4]))

    writer = threading.Thread(target=write_slowly)
    writer.start()
    (folder / "t0.txt").unlink()
    time.sleep(3 * SETTLE_S)
    place(folder, 30)
    done = within(60, steps)
    writing.set()
    writer.join()
    assert (done.indexed, done.pruned) == (1, 0)
    assert {"t0", "l4"} <= ids(collection)
    (folder / "more.jsonl").write_text("\n".join(lines))
    assert within(60, steps).pruned_ids == ["t0"]


def test_what_was_not_pruned_is_once_all_can_be_read(follow, folder, collection):
    steps = follow(prune=True)
    within(60, steps)
    (folder / "t1.txt.gz").write_bytes(b"\x1f\x8b\x08\x00 no such thing")
    (folder / "t0.txt").unlink()
    done = within(60, steps)
    while not done.unpruned:
        done = within(60, steps)
    (folder / "t1.txt.gz").write_bytes(gzip.compress((folder / "t1.txt").read_bytes()))
    assert within(60, steps).pruned_ids == ["t0"]


def test_of_records_in_two_files_the_last_file_wins_whichever_changed(follow, folder, collection):
    """As in every ingest of the whole folder."""
    for file, title in (("a.jsonl", "first"), ("z.jsonl", "last")):
        (folder / file).write_text(json.dumps(paper(1, id="both", title=title)))
    steps = follow()
    within(60, steps)
    (folder / "a.jsonl").write_text(json.dumps(paper(2, id="both", title="changed")))
    assert within(60, steps).undecided == 1
    within(60, steps)
    assert collection.get("both").title == "last"


def test_a_folder_that_goes_and_comes_back(follow, folder, collection, said):
    steps = follow(prune=True)
    within(60, steps)
    away = folder.with_name("away")
    folder.rename(away)
    timer = threading.Timer(2.0, lambda: (place(away, 30), away.rename(folder)))
    timer.start()
    done = within(60, steps)
    assert (done.indexed, done.pruned) == (1, 0)
    assert any("does not exist" in text for text in said)
    place(folder, 31)
    assert within(60, steps).indexed == 1
    assert len(ids(collection)) == 22


def test_an_empty_folder_is_followed(follow, folder, collection, said):
    shutil.rmtree(folder)
    folder.mkdir()
    steps = follow()
    threading.Timer(1.0, lambda: place(folder, 1)).start()
    with pytest.raises(InputError, match="holds no papers"):
        collection.ingest(folder)
    assert within(60, steps).indexed == 1


def test_a_server_that_is_away_is_asked_again(follow, folder, said, url, monkeypatch, collection):
    monkeypatch.setattr(watch, "_AGAIN_S", 0.5)
    monkeypatch.setenv("OSEMBED_RETRY_SECONDS", "0.5")
    monkeypatch.setenv("OSEMBED_PATIENCE_SECONDS", "0.5")
    with FaultProxy(url) as proxy:
        steps = follow(address=proxy.url)
        within(60, steps)
        proxy.rules.append(lambda _: Fault("answer", status=503, body=b'{"error":{"type":"x","reason":"away"},"status":503}'))
        timer = threading.Timer(4.0, proxy.rules.clear)
        timer.start()
        place(folder, 30)
        assert within(90, steps).indexed == 1
    assert any("Trying again in" in text for text in said)
    assert "t30" in ids(collection)


def test_a_collection_that_was_dropped_is_not_made_anew(follow, folder, collection, client, name, small):
    steps = follow()
    within(60, steps)
    collection.drop()
    place(folder, 30)
    with pytest.raises(DroppedError):
        within(60, steps)
    assert not client.indices.get(index=f"{name}*")
    steps = follow()
    within(60, steps)
    collection.drop()
    Collection(name, collection._url).ingest([paper(1)], small)
    place(folder, 31)
    with pytest.raises(DroppedError):
        within(60, steps)
    assert ids(collection) == {"p1"}


def test_a_dropped_collection_is_not_made_anew_to_prune_it(follow, folder, collection, client, name):
    steps = follow(prune=True)
    within(60, steps)
    collection.drop()
    (folder / "t0.txt").unlink()
    with pytest.raises(DroppedError):
        within(60, steps)
    assert not client.indices.get(index=f"{name}*")


def test_a_folder_that_goes_while_it_is_read_is_waited_for(follow, folder, collection, monkeypatch, said):
    look = Folder.changes

    def gone(self):
        if (folder / "t30.txt").exists():
            folder.rename(folder.with_name("away"))
            threading.Timer(1.5, folder.with_name("away").rename, [folder]).start()
            monkeypatch.setattr(Folder, "changes", look)
        return look(self)

    steps = follow()
    within(60, steps)
    monkeypatch.setattr(Folder, "changes", gone)
    place(folder, 30)
    assert within(60, steps).indexed == 1
    assert any("does not exist" in text for text in said)


def test_what_is_wrong_with_a_file_is_not_said_of_the_folder(follow, folder, said):
    steps = follow()
    within(60, steps)
    (folder / "t30.txt").write_text("short")
    threading.Timer(2.0, place, [folder, 31]).start()
    assert within(60, steps).indexed == 1
    assert any(text.startswith("The changed part of") for text in said)


def test_a_migration_does_not_end_it(follow, folder, collection, models):
    from osembed.migrate.proof.verdict import GateOptions

    steps = follow()
    within(60, steps)
    assert collection.migrate(str(models.mpnet), gate=GateOptions(skip=True), gentle=False).phase == "swapped"
    place(folder, 30)
    assert within(60, steps).indexed == 1
    assert collection.verify(full=True).passed


def test_without_word_from_the_system_it_looks_itself(follow, folder, monkeypatch):
    """On network drives."""
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    steps = follow()
    within(60, steps)
    place(folder, 30)
    assert within(60, steps).indexed == 1


def test_a_file_is_not_followed(collection, folder):
    for path, why in ((folder / "t0.txt", "is not a folder"), (folder / "nowhere", "There is no")):
        with pytest.raises(InputError, match=why):
            collection.watch(path)


def test_from_the_shell(name, url, models, folder):
    """One JSON line for each ingest, at once; Ctrl-C ends it."""
    (folder / "short.txt").write_text("Title\ntoo short")
    line = ["watch", str(folder), "--collection", name, "--url", url, "--model", str(models.bert), "--settle", "0.2", "--json"]
    process = Command(*line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    first = json.loads(process.stdout.readline())
    assert (first["indexed"], first["reasons"]) == (20, {"fewer than 100 words": 1})
    place(folder, 30)
    assert json.loads(process.stdout.readline())["indexed"] == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_terminated_watch_says_so(name, url, models, folder):
    """Whatever stops services takes any other exit code for a failure."""
    line = ["watch", str(folder), "--collection", name, "--url", url, "--model", str(models.bert), "--json"]
    process = Command(*line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline()
    time.sleep(1)  # it waits for changes then
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Terminated." in err) == (143, True), err
