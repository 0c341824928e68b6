"""The Python interface: one class with a method for each command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from osembed.arguments import as_filters, build_options, check_question, find_inputs, make_spec, several_texts
from osembed.embed.encoders import Encoders
from osembed.errors import InputError, UnavailableError
from osembed.evaluate.evaluation import Evaluation, evaluate
from osembed.evaluate.judged import read_judged
from osembed.ingest.delete import delete_papers
from osembed.ingest.feed import Feed
from osembed.ingest.options import IngestOptions
from osembed.ingest.spec import CollectionSpec
from osembed.ingest.summary import Summary
from osembed.ingest.watch import Watch
from osembed.limits import checked_value
from osembed.migrate.direction import MigrationContext
from osembed.migrate.migration import Migration
from osembed.migrate.options import MigrateOptions, MigrateResult
from osembed.migrate.progress import Progress
from osembed.migrate.proof.repair import Repair, repair
from osembed.migrate.proof.verification import Verification
from osembed.migrate.readiness import Announcer
from osembed.opensearch import changes, drop, drop_plan, node
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import Access, OpenSearch, Server, connect, handshake
from osembed.opensearch.coordination.registration import telling
from osembed.opensearch.doctor import Finding, examine_server
from osembed.opensearch.drop import DropResult
from osembed.opensearch.drop_plan import DropPlan
from osembed.opensearch.export import Export, Exported
from osembed.opensearch.names import find_published
from osembed.opensearch.patience import Report, until_settled
from osembed.opensearch.schema import check_name
from osembed.opensearch.status import LevelStatus, read_status
from osembed.opensearch.stored_papers import StoredPaper
from osembed.papers.files import check_output, whole_file
from osembed.papers.records import Record
from osembed.search.filters import filter_clauses, parse_filters
from osembed.search.options import SimilarOptions
from osembed.search.results import SearchResult
from osembed.search.searcher import Searcher
from osembed.search.several import SeveralSearcher
from osembed.search.similar import read_text


class Collection:
    """A collection of papers in OpenSearch.

    >>> from osembed import Collection
    >>> papers = Collection("papers")
    >>> papers.ingest("examples/corpus.jsonl")
    >>> for hit in papers.search("how do ants find their way home", size=3).hits:
    ...     print(hit.score, hit.title)

    Args:
        name: the collection's name.
        url: a server. None means OSEMBED_URL or, if that is not set, the embedded node, which is started when first needed.
        ca_cert: a file with the authorities to trust, where the server's certificate needs it.
        insecure: whether any certificate is trusted; only for tests.
        device, precision: where and how to embed; auto is nearly always right.
        report: called with one-line notices for people, such as "the node is starting". The library itself never prints.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        name: str = "papers",
        url: str | None = None,
        *,
        ca_cert: str = "",
        insecure: bool = False,
        device: str = "auto",
        precision: str = "auto",
        report: Report = lambda _: None,
    ) -> None:
        self.name, device, precision = check_name(name), checked_value("device", device), checked_value("precision", precision)
        self._url, self._ca_cert, self._insecure, self._report = url, ca_cert, insecure, report
        self._announcers: dict[str, Announcer] = {}
        self._joint_searchers: dict[tuple[str, ...], SeveralSearcher] = {}
        self._encoders = Encoders(device, precision)
        # Embedding one query on the CPU is faster than starting a GPU. The witness vectors prove that the vectors are the same.
        self._query_encoders = Encoders("cpu" if device == "auto" else device, "fp32" if precision == "auto" else precision)

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop background threads. This also happens when the object is garbage-collected."""
        while self._announcers:
            self._announcers.popitem()[1].stop()

    def ingest(
        self,
        papers: str | Path | Mapping[str, Any] | Record | Iterable[str | Path | Mapping[str, Any] | Record],
        spec: CollectionSpec | str | None = None,
        progress: Callable[[Summary], None] = lambda _: None,
        **options: Any,
    ) -> Summary:
        """Read, cut, embed and index papers. Run again, it does only what is left to do.

        Args:
            papers: one or more folders or files ("-" is standard input), or papers as dictionaries or `Record`s, also from a generator.
            spec: the model of a new collection, or a CollectionSpec (see `choose_models`). It must not contradict an existing collection.
            progress: called with the summary so far after each window of papers.
        Returns:
            The summary of this run.

            options: fields of IngestOptions, such as min_words=50.

        Raises:
            InputError: an input does not exist, or (NoPapersError) it holds no papers; nothing was started or created.
            IdentityError, InputError: the spec contradicts the collection; nothing was written.
            ClusterError: the server accepted no writes for ten minutes (OSEMBED_PATIENCE_SECONDS); acknowledged writes are kept.
            DroppedError: somebody dropped the collection during the ingest; it is not created again.
            PruneError: papers that are gone were not removed; everything else is done, see its `summary`.
        """
        chosen, inputs, wanted = build_options(IngestOptions, options), find_inputs(papers), make_spec(spec)
        return self._feed.ingest(inputs, wanted, chosen, progress)

    def watch(
        self,
        folder: str | Path,
        spec: CollectionSpec | str | None = None,
        progress: Callable[[Summary], None] = lambda _: None,
        *,
        settle: float = 2.0,
        **options: Any,
    ) -> Iterator[Summary]:
        """Ingest a folder, then its new and changed files again and again. Yields the summary of each ingest. Does not end by itself.

        Args:
            folder: the path of the folder.
            spec, progress, options: as for `ingest`. With prune=True, papers whose files disappear are removed.
            settle: seconds for which a file must not have changed, because it may be half written before.

        Raises:
            The same errors as `ingest`. But if the server is unavailable, it retries, and calls `report`, also with what was not pruned.
        """
        path = several_texts("folder", folder)[0]
        return Watch(self._feed, path, make_spec(spec), build_options(IngestOptions, options), progress, self._report, settle).run()

    def search(self, query: str, *, also: str | Sequence[str] = (), **options: Any) -> SearchResult:
        """Search papers and return a page of hits.

        Args:
            query: the words or question to search for.
            also: other collections on this server to search together with this one. Vector search needs the same model in all of them.
            options: fields of SearchOptions, such as size=5 or where="year>=2015".
        """
        text, chosen = check_question(query, options)
        others = [check_name(name) for name in several_texts("also", also)]
        self._announce(self.name)
        return self._searcher_of(others).search(text, chosen)

    def similar(
        self, paper_id: str | None = None, *, text: str | None = None, file: str | Path | None = None, **options: Any
    ) -> SearchResult:
        """Return the papers nearest to a stored one, to a text, or to a text file, by their vectors.

        Args:
            paper_id: the id of a stored paper. Exactly one of `paper_id`, `text` and `file` is required.
            text: a text, which is embedded like a paper and not like a query.
            file: a text file, whose first line is the title.
            options: fields of SimilarOptions, such as size=5.
        """
        chosen = build_options(SimilarOptions, options)
        if sum(given is not None for given in (paper_id, text, file)) != 1:
            raise InputError("Exactly one of ID, --text and --file is needed.", "", "Use one of them.")
        for name, given in (("paper_id", paper_id), ("text", text)):
            checked_value(name, "" if given is None else given, str)
        words = ("", text) if text is not None else read_text(file) if file is not None else None
        searcher = self._searcher
        seed = searcher.text_seed(*words) if words is not None else searcher.stored_seed(str(paper_id))
        return searcher.similar(seed, chosen)

    def request(self, query: str, **options: Any) -> dict[str, Any]:
        """Return the search as a request that other programs can send to this server: {"alias", "body", "curl", "notices"}."""
        text, chosen = check_question(query, options)
        return asdict(self._searcher.request(text, chosen, self._access))

    def get(self, paper_id: str) -> StoredPaper:
        """Return a stored paper with its chunks, metadata and versions. Raises NoPaperError, which names similar ids."""
        return self._searcher.get(paper_id)

    def count(self, where: str | Sequence[str] = ()) -> int:
        """Return the exact number of papers that match all filters. Calls `report` if this user may not see all papers."""
        found = self._searcher.count(as_filters(where))
        if said := self._searcher.sight_notice():
            self._report(said)
        return found

    def export(
        self, file: str | Path | IO[bytes], *, where: str | Sequence[str] = (), progress: Callable[[int, int], None] = lambda *_: None
    ) -> Exported:
        """Write papers as JSON lines that `ingest` can read back without loss; see docs/export.md. Returns the counts.

        Args:
            file: a path like papers.jsonl or papers.jsonl.gz, which is written completely or not at all; or an open binary file.
            where: one or more filters, all of which must match.
            progress: called with the number of papers read and the total.

        Raises:
            CollectionError: the collection is missing, or its index was deleted during the export.
            OutputError: the file cannot be written.
        """
        path = Path(file) if isinstance(file, str | Path) else None
        if path:
            check_output(path)
        self._reach()
        with self._telling(), whole_file(path) if path else nullcontext(cast(IO[bytes], file)) as opened:
            target = until_settled(self._searcher.resolve, report=self._report)["papers"]
            only = filter_clauses(parse_filters(as_filters(where)), target.meta_types, "papers")
            return Export(self.client, target, only, self._report).run(opened.write, progress)

    def delete(self, ids: str | Sequence[str]) -> dict[str, bool]:
        """Delete papers with their chunks. Returns for each id whether the paper existed."""
        wanted = several_texts("ids", ids)
        self._reach()
        loop = BulkLoop(self.client, report=self._report)
        try:
            with self._telling():
                found = delete_papers(self.client, self._searcher.resolve, loop, wanted)
                for target in until_settled(self._searcher.resolve).values():
                    until_settled(partial(changes.refresh, self.client, target.index))
                return found
        finally:
            loop.close()

    def migrate(
        self,
        model: str | None = None,
        spec: CollectionSpec | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        **options: Any,
    ) -> MigrateResult:
        """Move the collection to another model while readers and writers continue. Run again, it continues an interrupted migration.

        Args:
            model: the new model of both levels.
            spec: instead of `model`, a CollectionSpec, for one level or another mapping profile (see `choose_models`).
            progress: called with the progress after each window of documents.
            options: fields of MigrateOptions, such as swap=False or gate=GateOptions(skip=True).

        Returns:
            The result. `refused` says which check refused the swap; the new indexes are then kept for inspection.
        """
        if (model is None) == (spec is None):
            raise InputError("A model or a spec is needed, not both.", "", 'For example migrate("all-mpnet-base-v2").')
        wanted = make_spec(spec or model)
        self._reach()
        return self.migration(progress).run(wanted, build_options(MigrateOptions, options))

    def migration(self, progress: Callable[[Progress], None] = lambda _: None) -> Migration:
        """Return the collection's migration, for its steps: plan, swap, rollback, finish, abort, control, state."""
        bench = MigrationContext(self.client, self.server, self._encoders, self._query_encoders, self._report, progress)
        return Migration(bench, self.name)

    def swap(self, progress: Callable[[Progress], None] = lambda _: None, **options: Any) -> MigrateResult:
        """Move readers and writers to the new model of a migration that is ready; `options` as for `migrate`."""
        self._reach()
        return self.migration(progress).swap(build_options(MigrateOptions, options))

    def rollback(self, progress: Callable[[Progress], None] = lambda _: None, **options: Any) -> MigrateResult:
        """Bring the old model back, with the writes and deletes made since the swap; `options` as for `migrate`."""
        self._reach()
        return self.migration(progress).rollback(build_options(MigrateOptions, options))

    def verify(self, *, full: bool = False, progress: Callable[[Progress], None] = lambda _: None) -> Verification:
        """Verify the collection: during a migration both sides, else its vectors against its texts. Returns the report.

        Args:
            full: check every document instead of a sample.
            progress: called with the progress after each page of documents.
        """
        self._reach()
        return self.migration(progress).verify(full=full)

    def repair(self) -> Repair:
        """Repair what writers that bypass osembed left: embed documents without a current vector, delete orphaned chunks."""
        self._reach()
        with self._telling():
            return repair(self.client, self.name, until_settled(self._searcher.resolve), self._encoders)

    def evaluate(self, folder: str | Path, *, split: str = "test", progress: Callable[[int, int], None] = lambda *_: None) -> Evaluation:
        """Measure every mode, fusion and level against the judged queries of a folder in BEIR layout."""
        return evaluate(self._searcher, self.name, read_judged(Path(folder), split), progress=progress)

    def status(self) -> list[LevelStatus]:
        """Return the status of each level. Raises CollectionError if the collection is missing or contradictory."""
        return read_status(self.client, self.name, find_published(self.client, self.name))

    def plan_drop(self, *, leftovers: bool = False) -> DropPlan:
        """Return what a drop would delete; with `leftovers` only what interrupted work left behind. Changes nothing."""
        plan = drop_plan.plan_clearing if leftovers else drop_plan.plan_drop
        return plan(self.client, self.name)

    def drop(self, plan: DropPlan | None = None) -> DropResult:
        """Delete the collection permanently: its indexes, those of a migration that no process is running, its journal entries.

        Args:
            plan: the plan that was shown and confirmed (`plan_drop`). If more than that exists now, the drop is refused. None confirms
            everything.

        Raises:
            BusyError: a migration, first load or ingest is running.
            CollectionError: its aliases point to foreign indexes, or it has changed since it was planned; nothing is deleted.
        """
        return drop.drop(self.client, plan or self.plan_drop())

    def doctor(self) -> list[Finding]:
        """Check server and collection, and return the findings. Creates the search pipeline if it is missing."""
        return examine_server(self.client, self.server, self.name)

    @cached_property
    def client(self) -> OpenSearch:
        """The opensearch-py client, connected to this collection's server."""
        url = self._url or os.environ.get("OSEMBED_URL") or node.ensure(self._report)
        self._access = Access.from_environment(url, ca_cert=self._ca_cert, insecure=self._insecure)
        return connect(self._access)

    @cached_property
    def server(self) -> Server:
        """The server's version and kind."""
        client = self.client
        return handshake(client, self._access.url)

    def _reach(self) -> None:
        """Contact the server before long work. Waits for a server that answers that it is unavailable, but not for one that does not answer."""
        until_settled(lambda: self.server, report=self._report, only=UnavailableError)

    @property
    def shares_cores(self) -> bool:
        """Whether embedding competes with the server for CPU cores: the server is on this machine, and so is the CPU that embeds."""
        host = urlsplit(self._access.url if self.client else "").hostname
        return host in ("127.0.0.1", "localhost", "::1") and self._encoders.on_cpu

    def _telling(self) -> AbstractContextManager[None]:
        """Raise DroppedError instead of an error that results from a drop of the collection."""
        return telling(lambda: self.client, self.name)

    @cached_property
    def _feed(self) -> Feed:
        def connect() -> tuple[OpenSearch, Server]:
            self._reach()
            self._announce(self.name)
            return self.client, self.server

        return Feed(self.name, connect, self._encoders, self._report)

    def _announce(self, name: str) -> None:
        """Start to announce to migrations of a collection which models this process can use."""
        if name not in self._announcers:
            self._announcers[name] = Announcer(self.client, name, self._query_encoders)
            self._announcers[name].start(self)

    def _searcher_of(self, others: Sequence[str]) -> Searcher:
        """Return the searcher of this collection and others. It is kept for later searches."""
        names = tuple(dict.fromkeys((self.name, *others)))
        if len(names) == 1:
            return self._searcher
        if names not in self._joint_searchers:
            self._joint_searchers[names] = SeveralSearcher(self.client, self.server, names, self._query_encoders)
            for name in names[1:]:  # migrations of the other collections also need to know which models readers have
                self._announce(name)
        return self._joint_searchers[names]

    @cached_property
    def _searcher(self) -> Searcher:
        return Searcher(self.client, self.server, self.name, self._query_encoders)
