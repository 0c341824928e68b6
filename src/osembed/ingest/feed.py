"""One collection that is fed, once or again and again: look at the input, open the collection, ingest, publish."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import closing
from pathlib import Path

from osembed.embed.encoders import Encoders
from osembed.errors import PruneError
from osembed.ingest.intake import Intake
from osembed.ingest.loading import Opened, finish_loading, leave, open_collection
from osembed.ingest.options import IngestOptions
from osembed.ingest.run import Ingest
from osembed.ingest.spec import CollectionSpec
from osembed.ingest.summary import ProgressCallback, Summary
from osembed.opensearch import indexes
from osembed.opensearch.client import OpenSearch, Server
from osembed.opensearch.coordination.registration import dropped_error, telling
from osembed.opensearch.names import missing
from osembed.opensearch.patience import Report, settled
from osembed.papers.readers.dicts import Dicts


class Feed:
    """What feeds one collection.

    Args:
        collection: its name.
        connect: returns client and server; called once there is something to write.
        encoders: the models, kept from one ingest to the next.
        report: told what a person should know.
    """

    def __init__(self, collection: str, connect: Callable[[], tuple[OpenSearch, Server]], encoders: Encoders, report: Report) -> None:
        self._collection, self._connect, self._encoders, self._report = collection, connect, encoders, report
        self._drops: int | None = None

    def ingest(
        self,
        papers: Sequence[str] | Dicts,
        spec: CollectionSpec,
        options: IngestOptions,
        progress: ProgressCallback,
        only: Container[Path] | None = None,
        *,
        again: bool = False,
    ) -> Summary:
        """Ingest papers. Raises as `Collection.ingest` does.

        Args:
            papers: paths, or papers that are handed over.
            spec, options, progress: see `Collection.ingest`.
            only: files of a folder that are read; None stands for all.
            again: whether the collection must still be the one that the last ingest has fed.
        """
        # The input first: for one that is not there nothing is started, created or bound to a model.
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
                leave(opened.entry)
                raise
            summary.published = finish_loading(client, opened, self._report)
        if summary.unpruned:
            raise PruneError(summary.unpruned, summary)
        return summary

    def _open(self, client: OpenSearch, server: Server, spec: CollectionSpec, intake: Intake, *, again: bool) -> Opened:
        if (again or intake.is_empty) and settled(lambda: indexes.resolve(client, self._collection), report=self._report) is None:
            raise intake.nothing() if intake.is_empty else missing(client, self._collection)
        sample = [paper.text for paper in intake.sample]
        opened = settled(lambda: open_collection(client, server, self._collection, spec, self._encoders, sample), report=self._report)
        if again and opened.entry.drops != self._drops:
            leave(opened.entry)
            raise dropped_error(self._collection, {})
        self._drops = opened.entry.drops
        return opened
