"""Ingest into one collection, once or repeatedly: check the input, open the collection, ingest, publish."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import closing
from pathlib import Path

from osembed.embed.encoders import Encoders
from osembed.errors import PruneError
from osembed.ingest.intake import Intake
from osembed.ingest.loading import Opened, finish_loading, leave_quietly, open_collection
from osembed.ingest.options import IngestOptions
from osembed.ingest.run import Ingest
from osembed.ingest.spec import CollectionSpec
from osembed.ingest.summary import Summary
from osembed.opensearch import indexes
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.registration import dropped_error, telling
from osembed.opensearch.names import missing_collection
from osembed.opensearch.patience import until_settled
from osembed.papers.readers.dicts import Dicts

Report = Callable[[str], None]
Progress = Callable[[Summary], None]


class Feed:
    """Ingests into one collection; `ingest` may be called again and again.

    Args:
        collection: its name.
        connect: returns client and server; called when there is something to write.
        encoders: the models, kept between ingests.
        report: called with notices for people.
    """

    def __init__(self, collection: str, connect: Callable[[], tuple[OpenSearch, Server]], encoders: Encoders, report: Report) -> None:
        self._collection, self._connect, self._encoders, self._report = collection, connect, encoders, report
        self._drops: int | None = None

    def ingest(
        self,
        papers: Sequence[str] | Dicts,
        spec: CollectionSpec,
        options: IngestOptions,
        progress: Progress,
        only: Container[Path] | None = None,
        *,
        again: bool = False,
    ) -> Summary:
        """Ingest papers and return what was done. Raises the same errors as `Collection.ingest`.

        Args:
            papers: paths, or papers as dictionaries.
            spec, options, progress: see `Collection.ingest`.
            only: the files of a folder to read; None for all.
            again: whether the collection must still be the one of the last ingest. If it was dropped since, DroppedError is raised.
        """
        # Check the input first: if it is missing, nothing must be started, created or bound to a model.
        with closing(Intake(papers, options, self._collection, only)) as intake, telling(lambda: self._connect()[0], self._collection):
            intake.look()
            if intake.notice:
                self._report(intake.notice)
            client, server = self._connect()
            opened = self._open(client, server, spec, intake, again=again)
            for notice in opened.notices:
                self._report(notice)
            try:
                summary = Ingest(client, opened, self._encoders, intake).run(progress, self._report)
            except BaseException:
                leave_quietly(opened.entry)
                raise
            summary.published = finish_loading(client, opened, self._report)
        if summary.unpruned:
            raise PruneError(summary.unpruned, summary)
        return summary

    def _open(self, client: OpenSearch, server: Server, spec: CollectionSpec, intake: Intake, *, again: bool) -> Opened:
        if (again or intake.is_empty) and until_settled(lambda: indexes.resolve(client, self._collection), report=self._report) is None:
            raise intake.nothing() if intake.is_empty else missing_collection(client, self._collection)
        sample = [paper.text for paper in intake.sample]
        opened = until_settled(lambda: open_collection(client, server, self._collection, spec, self._encoders, sample), report=self._report)
        if again and opened.entry.drops != self._drops:
            leave_quietly(opened.entry)
            raise dropped_error(self._collection, {})
        self._drops = opened.entry.drops
        return opened
