"""Compare the papers in each root of an input with its manifest: which are new, and which are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from osembed.papers.readers.folders import Root
from osembed.papers.records import Rejected
from osembed.papers.spill import AT_ONCE, Spill

_TABLE = "CREATE TABLE paper (root TEXT, id TEXT, known INTEGER, present INTEGER, shared TEXT, PRIMARY KEY (root, id)) WITHOUT ROWID"


class Inventory:
    """The papers of some roots during one run.

    Attributes:
        roots: path → root, for roots whose papers are tracked.
        unread: root → a place that could not be read, or a record without an id. Papers missing from such a root may still exist.
    """

    def __init__(self, roots: Iterable[Root]) -> None:
        self.roots = {root.path: root for root in roots}
        self.unread: dict[str, Rejected] = {}
        self._spill = Spill([_TABLE])

    def know(self, root: str, ids: Iterable[str]) -> None:
        """Note ids in a root's manifest."""
        statement = "INSERT INTO paper VALUES (?, ?, 1, 0, '') ON CONFLICT DO UPDATE SET known = 1"
        self._spill.write(statement, [(root, paper_id) for paper_id in ids])

    def meet(self, root: str, ids: Iterable[str]) -> list[str]:
        """Note ids found in a root. Returns those that its manifest lacks."""
        wanted = list(dict.fromkeys(ids))
        lines = self._spill.ask_each("SELECT id FROM paper WHERE root = ? AND id IN (%s)", wanted, (root,))
        known = {paper_id for (paper_id,) in lines}
        statement = "INSERT INTO paper VALUES (?, ?, 0, 1, '') ON CONFLICT DO UPDATE SET present = 1"
        self._spill.write(statement, [(root, paper_id) for paper_id in wanted])
        return [paper_id for paper_id in wanted if paper_id not in known]

    def fail(self, root: str, rejected: Rejected) -> None:
        """Note that a root could not be read completely."""
        self.unread.setdefault(root, rejected)

    def share(self, root: str, ids: Iterable[str], where: str) -> None:
        """Note that papers which are gone from a root also came from another root."""
        statement = "UPDATE paper SET shared = ? WHERE root = ? AND id = ? AND known AND NOT present"
        self._spill.write(statement, [(where, root, paper_id) for paper_id in ids])

    def gone(self, root: str) -> Iterator[dict[str, str]]:
        """Yield, some at a time, the ids in the manifest that the root no longer has: id → another root that has it, or ""."""
        last = ""
        statement = "SELECT id, shared FROM paper WHERE root = ? AND known AND NOT present AND id > ? ORDER BY id LIMIT ?"
        while rows := self._spill.ask(statement, (root, last, AT_ONCE)):
            yield dict(rows)
            last = rows[-1][0]

    def gone_of(self, root: str, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that were in the manifest when this run started and that the root no longer has."""
        statement = "SELECT id FROM paper WHERE root = ? AND known AND NOT present AND id IN (%s)"
        return {paper_id for (paper_id,) in self._spill.ask_each(statement, ids, (root,))}

    def present(self, root: str) -> int:
        """Return the number of papers in a root."""
        return int(self._spill.ask("SELECT count(*) FROM paper WHERE root = ? AND present", (root,))[0][0])

    def close(self) -> None:
        """Delete the temporary data."""
        self._spill.close()
