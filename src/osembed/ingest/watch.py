"""Watch a folder and ingest its new and changed files once they have stopped changing.

File system events only wake the watcher. It finds changes by scanning the folder, so lost events, moved folders and network drives do no harm.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from osembed.errors import AuthError, BusyError, ClusterError, InputError, NoPapersError, PruneError, RefusedError
from osembed.ingest.feed import Feed, Progress, Report
from osembed.ingest.options import IngestOptions
from osembed.ingest.spec import CollectionSpec
from osembed.ingest.summary import Summary
from osembed.limits import checked_value
from osembed.papers.readers.folders import FoundFile, find_files
from osembed.papers.readers.kinds import ONE_PAPER, kind_of
from osembed.papers.records import printable_name

_LOOK_S = 60.0  # scan at least this often, because network drives send no events
_AGAIN_S = 30.0  # pause before a retry after a server error
_POLL_MS = 2000  # polling interval if the system cannot watch the folder
Stamp = tuple[int, int, int]  # bytes, and nanoseconds of the last changes


@dataclass(frozen=True)
class Changes:
    """Changes in a folder: files to read, and files that are gone."""

    files: frozenset[Path] = frozenset()
    gone: frozenset[Path] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.files or self.gone)


@dataclass
class Folder:
    """The files of a folder, and how long each has been unchanged.

    Attributes:
        root: its path.
        settle_s: seconds after which an unchanged file counts as complete.
        done: file → its stamp when it was ingested.
        waiting: file that is new, changed (its stamp) or gone (None) → when this state was first seen.
    """

    root: Path
    settle_s: float
    done: dict[Path, Stamp] = field(default_factory=dict)
    waiting: dict[Path, tuple[Stamp | None, float]] = field(default_factory=dict)

    def take(self) -> None:
        """Mark all files as ingested in their current state."""
        self.done, self.waiting = self._look(), {}

    def changes(self) -> Changes:
        """Scan the folder and return the changes that have settled."""
        now, at = self._look(), time.monotonic()
        differing: dict[Path, Stamp | None] = {file: stamp for file, stamp in now.items() if self.done.get(file) != stamp}
        differing.update(dict.fromkeys(self.done.keys() - now.keys()))
        before = self.waiting
        self.waiting = {
            file: before[file] if file in before and before[file][0] == stamp else (stamp, at) for file, stamp in differing.items()
        }
        ripe = {file: stamp for file, (stamp, since) in self.waiting.items() if at - since >= self.settle_s}
        return Changes(
            frozenset(file for file, stamp in ripe.items() if stamp), frozenset(file for file, stamp in ripe.items() if not stamp)
        )

    def is_quiet(self, changes: Changes) -> bool:
        """Return whether there are no other changes than these."""
        return self.waiting.keys() == changes.files | changes.gone

    def settle(self, changes: Changes) -> None:
        """Mark changes as ingested, in the state in which `changes` returned them."""
        for file in (*changes.files, *changes.gone):
            stamp = self.waiting.pop(file, (None, 0.0))[0]
            if stamp:
                self.done[file] = stamp
            else:
                self.done.pop(file, None)

    def _look(self) -> dict[Path, Stamp]:
        found = find_files(str(self.root), lambda *_: None)
        return {one.file: (one.size, *one.changed) for one in found if isinstance(one, FoundFile)}


class Watch:
    """Ingests a folder into a collection, again whenever it changes.

    Args:
        feed: ingests into the collection.
        root: the folder.
        spec, options, progress: for each ingest; the spec is used until one ingest has succeeded.
        report: called with notices for people.
        settle: seconds for which a file must not have changed.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self, feed: Feed, root: str, spec: CollectionSpec, options: IngestOptions, progress: Progress, report: Report, settle: float
    ) -> None:
        if not Path(root).is_dir():
            why = f"{printable_name(root)} is not a folder." if Path(root).exists() else f"There is no {printable_name(root)}."
            raise InputError(why, "Only a folder can be watched.", "Name a folder; `osembed ingest` reads a file once.")
        self._feed, self._root, self._spec, self._options, self._progress, self._report = feed, root, spec, options, progress, report
        self._folder = Folder(Path(root), checked_value("settle", settle))
        self._said = ""
        # An ingest has succeeded; a run over the whole folder is due; the last such run refused to prune or found no papers.
        self._fed = self._owed = self._refused = False

    def run(self) -> Iterator[Summary]:
        """Yield the summary of each ingest. Ends only with an error or an interruption."""
        self._folder.take()
        yield from self._ingest(None)
        for _ in self._wakes():
            try:
                changes = self._folder.changes()
                yield from self._follow(changes)
            except (ClusterError, BusyError) as error:
                if isinstance(error, AuthError | RefusedError):
                    raise
                self._say(f"{error} Trying again in {_AGAIN_S:.0f} s.")
                time.sleep(_AGAIN_S)
            except InputError:
                if self._inode() is not None:
                    raise
            else:
                self._folder.settle(changes)

    def _follow(self, changes: Changes) -> Iterator[Summary]:
        """Ingest what has changed. The whole folder is read if papers may be gone, or if several records share an id."""
        if self._options.prune and changes:
            several = any(kind_of(file) not in ONE_PAPER for file in changes.files)
            self._owed = self._owed or self._refused or several or bool(changes.gone)
        # Never prune while files are changing: a half-written file seems to have lost papers.
        ready = self._folder.is_quiet(changes) or not self._options.prune
        if changes.files and not (self._owed and ready):
            for summary in self._ingest(changes.files):
                self._owed = self._owed or bool(summary.undecided)
                yield summary
        if self._owed and ready:
            yield from self._ingest(None)

    def _ingest(self, only: frozenset[Path] | None) -> Iterator[Summary]:
        """Ingest some files of the folder, or all with None. Reports why nothing was ingested or pruned."""
        options = self._options if only is None else replace(self._options, prune=False)
        refused = ""
        try:
            summary = self._feed.ingest([self._root], self._spec, options, self._progress, only, again=self._fed)
        except NoPapersError as error:  # keep watching: papers may still arrive
            summary, refused = None, str(error)
        except PruneError as error:
            summary, refused = error.summary, str(error)
        if only is None:
            self._owed, self._refused = False, bool(refused)
        if refused:
            self._say(refused)
        else:
            self._said = ""
        if summary:
            self._spec, self._fed = CollectionSpec(), True  # the collection may be migrated while it is followed
            yield summary

    def _wakes(self) -> Iterator[None]:
        """Yield whenever it is time to scan the folder. While the folder is missing, wait for it."""
        from watchfiles import watch

        tick_ms = int(1000 * min(1.0, max(0.05, self._folder.settle_s / 2)))
        polling = None
        while True:
            same, looked = self._inode(), -_LOOK_S
            if same is None:
                self._say(f"{printable_name(self._root)} does not exist. Waiting for it; nothing is pruned.")
                time.sleep(1)
                continue
            try:
                for events in watch(
                    self._root,
                    watch_filter=None,
                    rust_timeout=tick_ms,
                    yield_on_timeout=True,
                    force_polling=polling,
                    poll_delay_ms=_POLL_MS,
                    ignore_permission_denied=True,
                ):
                    if self._inode() != same:
                        break
                    if events or self._folder.waiting or time.monotonic() - looked >= _LOOK_S:
                        looked = time.monotonic()
                        yield
            except FileNotFoundError:
                continue
            except OSError as error:
                if polling:
                    raise
                polling = True
                self._say(f"The system reports no changes for this folder ({error}): it is scanned every {_POLL_MS // 1000} s.")

    def _inode(self) -> tuple[int, int] | None:
        """Return device and inode of the folder; None if there is none."""
        try:
            found = os.stat(self._root)
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None

    def _say(self, text: str) -> None:
        """Report a notice, but do not repeat the same one until an ingest succeeds."""
        if text != self._said:
            self._said = text
            self._report(text)
