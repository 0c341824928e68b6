"""Remove papers that came from a folder or file and are no longer in it.

A paper is pruned only if it provably belongs to this root: the root's manifest lists it, the root was read completely without it, no other root
lists it, and its stored version still comes from this root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from osembed.ingest.delete import delete_papers
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import OpenSearch
from osembed.opensearch.documents import read_documents
from osembed.opensearch.manifests import Manifests
from osembed.opensearch.patience import until_settled
from osembed.opensearch.target import Targets
from osembed.papers.inventory import Inventory
from osembed.papers.readers.folders import Root, is_inside

if TYPE_CHECKING:
    from osembed.ingest.summary import Summary

_SHARE = 0.1  # of a root's papers: if more are gone at once, a disk is probably not mounted
_NAMED = 10  # ids listed in the summary
_AT_ONCE = 500  # papers per round of deletes
Report = Callable[[str], None]


class Pruner:
    """Maintains the manifests of a run's roots, and prunes.

    Args:
        client, collection: the connection and the collection's name.
        inventory: which papers the roots hold; it is filled while the input is read.
        report: called when the server is waited for.
    """

    def __init__(self, client: OpenSearch, collection: str, inventory: Inventory, report: Report) -> None:
        self._client, self._inventory, self._report = client, inventory, report
        self._manifests = Manifests(client, collection)

    def load(self) -> None:
        """Read the manifests as they are before this run, so that papers added by others in the meantime do not count as gone."""
        for root in self._inventory.roots.values():
            for ids in until_settled(lambda root=root: list(self._manifests.read(root)), report=self._report):  # type: ignore[misc]
                self._inventory.know(root.path, ids)

    def claim(self, held: Mapping[str, Iterable[str]]) -> None:
        """Add papers to the manifests of their roots, before they are written."""
        for path, ids in held.items():
            new = self._inventory.meet(path, ids)
            if new:
                until_settled(partial(self._manifests.add, self._inventory.roots[path], new), report=self._report)

    def prune(self, summary: Summary, targets: Callable[[], Targets], loop: BulkLoop, most: int | None) -> None:
        """Prune each root, or add to the summary why it was not pruned.

        Args:
            summary: receives the counts.
            targets: returns the collection's current indexes.
            loop: sends the deletes.
            most: most papers to prune per root; None means a tenth of the papers that came from it.
        """
        for root in self._inventory.roots.values():
            rejected = self._inventory.unread.get(root.path)
            if rejected:
                summary.unpruned.append(
                    f"Nothing of {root.prefix} was pruned: it was not read completely ({rejected.source}: {rejected.reason}), so a missing "
                    "paper may still exist. Fix that, then run the same command again."
                )
            else:
                self._prune_root(root, summary, targets, loop, most)

    def _prune_root(self, root: Root, summary: Summary, targets: Callable[[], Targets], loop: BulkLoop, most: int | None) -> None:
        gone = self._gone(root, summary, targets)
        if why := self._excess(root, gone, most):
            summary.unpruned.append(why)
            return
        for start in range(0, len(gone), _AT_ONCE):
            delete_papers(self._client, targets, loop, gone[start : start + _AT_ONCE])
        summary.pruned += len(gone)
        summary.pruned_ids.extend(gone[: _NAMED - len(summary.pruned_ids)])
        until_settled(lambda: self._manifests.remove(root, lambda ids: self._inventory.gone_of(root.path, ids)), report=self._report)

    def _gone(self, root: Root, summary: Summary, targets: Callable[[], Targets]) -> list[str]:
        """Return the stored papers to prune. Papers that do not belong to this root alone are counted as spared."""
        prefixes = until_settled(lambda: self._manifests.prefixes(root), report=self._report)
        if any(self._inventory.gone(root.path)):
            until_settled(lambda: self._note_shared(root), report=self._report)
        gone = []
        for shared in self._inventory.gone(root.path):
            ids = list(shared)
            stored = until_settled(lambda ids=ids: read_documents(self._client, targets()["papers"], ids, ["source"]), report=self._report)  # type: ignore[misc]
            for paper_id, found in stored.items():
                inside = any(is_inside(str(found.fields.get("source")), prefix) for prefix in prefixes)
                if inside and not shared[paper_id]:
                    gone.append(paper_id)
                    continue
                why = f"{shared[paper_id]} has brought them in, too" if shared[paper_id] else "what is stored came from elsewhere since"
                summary.spared[why] = summary.spared.get(why, 0) + 1
                names = summary.spared_ids.setdefault(why, [])
                names.extend([paper_id] if len(names) < _NAMED else [])
        return gone

    def _note_shared(self, root: Root) -> None:
        for other in self._manifests.others(root):
            self._inventory.share(root.path, other.ids, other.where)

    def _excess(self, root: Root, gone: list[str], most: int | None) -> str:
        """Return why this many papers are not pruned, or ""."""
        present = self._inventory.present(root.path)
        limit = most if most is not None else int(_SHARE * (present + len(gone))) if present else 0
        if len(gone) <= limit:
            return ""
        named = ", ".join(gone[:3]) + ("" if len(gone) <= 3 else ", …")
        are = "is" if len(gone) == 1 else "are"
        brought = f"{len(gone):,} of the {present + len(gone):,} papers that came from it {are} gone ({named})."
        why = (
            f"That is more than --max-delete {most:,}."
            if most is not None
            else "That is more than a tenth."
            if present
            else "It is empty now."
        )
        way = f"Check that no part of it is missing by mistake; to prune anyway: --max-delete {len(gone)}."
        return f"Nothing of {root.prefix} was pruned: {brought} {why} {way}"
