"""Which papers each root of an input has, beside those that its manifest knows: what the manifest lacks, what is gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from osembed.papers.readers.folders import Root
from osembed.papers.records import Rejected
from osembed.papers.spill import AT_ONCE, Spill

_TABLE = "CREATE TABLE paper (root TEXT, id TEXT, known INTEGER, present INTEGER, shared TEXT, PRIMARY KEY (root, id)) WITHOUT ROWID"


class Inventory:
    """The papers of some roots during one run.

    Attributes:
        roots: those whose papers are kept, by their path.
        unread: root → a place of it that could not be read, or that holds a record without an id: what it lacks is not surely gone.
    """

    def __init__(self, roots: Iterable[Root]) -> None:
        self.roots = {root.path: root for root in roots}
        self.unread: dict[str, Rejected] = {}
        self._spill = Spill([_TABLE])

    def know(self, root: str, ids: Iterable[str]) -> None:
        """Note ids that a root's manifest names."""
        statement = "INSERT INTO paper VALUES (?, ?, 1, 0, '') ON CONFLICT DO UPDATE SET known = 1"
        self._spill.write(statement, [(root, paper_id) for paper_id in ids])

    def meet(self, root: str, ids: Iterable[str]) -> list[str]:
        """Note ids that a root has; return those that its manifest lacks."""
        wanted = list(dict.fromkeys(ids))
        lines = self._spill.ask_each("SELECT id FROM paper WHERE root = ? AND id IN (%s)", wanted, (root,))
        known = {paper_id for (paper_id,) in lines}
        statement = "INSERT INTO paper VALUES (?, ?, 0, 1, '') ON CONFLICT DO UPDATE SET present = 1"
        self._spill.write(statement, [(root, paper_id) for paper_id in wanted])
        return [paper_id for paper_id in wanted if paper_id not in known]

    def fail(self, root: str, rejected: Rejected) -> None:
        """Note that not everything of a root is known."""
        self.unread.setdefault(root, rejected)

    def share(self, root: str, ids: Iterable[str], where: str) -> None:
        """Note that papers which are gone from a root were brought in by another one, too."""
        statement = "UPDATE paper SET shared = ? WHERE root = ? AND id = ? AND known AND NOT present"
        self._spill.write(statement, [(where, root, paper_id) for paper_id in ids])

    def gone(self, root: str) -> Iterator[dict[str, str]]:
        """Yield, some at a time, the ids that the manifest names and the root does not have: id → another root that has it, or ''."""
        last = ""
        statement = "SELECT id, shared FROM paper WHERE root = ? AND known AND NOT present AND id > ? ORDER BY id LIMIT ?"
        while rows := self._spill.ask(statement, (root, last, AT_ONCE)):
            yield dict(rows)
            last = rows[-1][0]

    def gone_of(self, root: str, ids: Sequence[str]) -> set[str]:
        """Return those of some ids that the manifest named when this run began, and that the root does not have."""
        statement = "SELECT id FROM paper WHERE root = ? AND known AND NOT present AND id IN (%s)"
        return {paper_id for (paper_id,) in self._spill.ask_each(statement, ids, (root,))}

    def present(self, root: str) -> int:
        """Return how many papers a root has."""
        return int(self._spill.ask("SELECT count(*) FROM paper WHERE root = ? AND present", (root,))[0][0])

    def close(self) -> None:
        """Forget everything."""
        self._spill.close()
