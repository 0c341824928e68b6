"""The Python face: one class whose methods are the commands."""

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
from osembed.migrate.proof.report import Report as VerifyReport
from osembed.migrate.readiness import Announcer
from osembed.opensearch import changes, drop, indexes, node
from osembed.opensearch.bulk import BulkLoop
from osembed.opensearch.client import Access, OpenSearch, Server, connect, handshake
from osembed.opensearch.coordination.registration import telling
from osembed.opensearch.doctor import Check, examine_server
from osembed.opensearch.drop import DropPlan, DropResult
from osembed.opensearch.export import Export, Exported
from osembed.opensearch.names import missing_collection
from osembed.opensearch.patience import until_settled
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

Report = Callable[[str], None]


class Collection:
    """A collection of papers in OpenSearch.

    >>> from osembed import Collection
    >>> papers = Collection("papers")
    >>> papers.ingest("examples/corpus.jsonl")
    >>> for hit in papers.search("how do ants find their way home", size=3).hits:
    ...     print(hit.score, hit.title)

    Args:
        name: the collection's name.
        url: a server; None takes OSEMBED_URL, else the embedded node, which is started when first needed.
        ca_cert, insecure: see Access.
        device, precision: where and how to embed; auto suits nearly always.
        report: called with one-line notices for people (a node starts, a server is busy). The library itself never prints.
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
        # One query is faster on the CPU in full precision than the start of a GPU; the witness vectors say that the space is the same.
        self._query_encoders = Encoders("cpu" if device == "auto" else device, "fp32" if precision == "auto" else precision)

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs in the background; so does a collection that nobody refers to any more."""
        while self._announcers:
            self._announcers.popitem()[1].stop()

    def ingest(
        self,
        papers: str | Path | Mapping[str, Any] | Record | Iterable[str | Path | Mapping[str, Any] | Record],
        spec: CollectionSpec | str | None = None,
        progress: Callable[[Summary], None] = lambda _: None,
        **options: Any,
    ) -> Summary:
        """Read, cut, embed and index papers; run again it only does what is left.

        Args:
            papers: a folder or file, or several ("-" is standard input); or papers as dictionaries or `Record`s, such as from a generator.
            spec: the model of a new collection, or models, chunking and mapping (`choose_models` helps); an existing one must agree.
            progress: called after each window of papers.
            options: fields of IngestOptions, such as min_words=50.

        Raises:
            InputError: an input is not there, or (NoPapersError) nothing of it is a paper; nothing was started or created.
            IdentityError, InputError: the spec contradicts the collection; nothing was written.
            ClusterError: the server took nothing for ten minutes; what was acknowledged is kept.
            DroppedError: somebody dropped the collection meanwhile; nothing of it is made anew.
            PruneError: papers that are gone were not removed; all else is done, and stands in its `summary`.
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
        """Ingest a folder, then again and again the files of it that are new or have changed; yield what each time was done. Endless.

        Args:
            folder: its path.
            spec, progress, options: as for `ingest`; with prune=True papers whose files go are removed, too.
            settle: seconds for which a file must not have changed: before that it may be half written.

        Raises:
            what `ingest` raises; but a server that is away is asked again, and `report` is told so, and of what is not pruned.
        """
        path = several_texts("folder", folder)[0]
        return Watch(self._feed, path, make_spec(spec), build_options(IngestOptions, options), progress, self._report, settle).run()

    def search(self, query: str, *, also: str | Sequence[str] = (), **options: Any) -> SearchResult:
        """Search papers.

        Args:
            query: what is looked for.
            also: other collections of this server to search with this one, as if they were one. By vectors only where all have one model.
            options: the fields of SearchOptions, such as size=5 or where="year>=2015".
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
            paper_id: a stored paper; or one of the others.
            text: embedded as a paper's passage, not as a query.
            file: the same of a file's text, whose first line is the title.
            options: the fields of SimilarOptions, such as size=5.
        """
        chosen = build_options(SimilarOptions, options)
        if sum(given is not None for given in (paper_id, text, file)) != 1:
            raise InputError("Exactly one of ID, --text and --file is needed.", "Papers are compared with one thing.", "Give one of them.")
        for name, given in (("paper_id", paper_id), ("text", text)):
            checked_value(name, "" if given is None else given, str)
        words = ("", text) if text is not None else read_text(file) if file is not None else None
        searcher = self._searcher
        seed = searcher.text_seed(*words) if words is not None else searcher.stored_seed(str(paper_id))
        return searcher.similar(seed, chosen)

    def request(self, query: str, **options: Any) -> dict[str, Any]:
        """Return the search as a request for other programs, such as this server understands: {"alias", "body", "curl", "notices"}."""
        text, chosen = check_question(query, options)
        return asdict(self._searcher.request(text, chosen, self._access))

    def get(self, paper_id: str) -> StoredPaper:
        """Return a stored paper with its chunks, metadata and versions. Raises NoPaperError, naming ids that begin alike."""
        return self._searcher.get(paper_id)

    def count(self, where: str | Sequence[str] = ()) -> int:
        """Return how many papers match all filters; all papers without one. Exact; `report` is told if this user may not see all."""
        found = self._searcher.count(as_filters(where))
        if said := self._searcher.sight_notice():
            self._report(said)
        return found

    def export(
        self, file: str | Path | IO[bytes], *, where: str | Sequence[str] = (), progress: Callable[[int, int], None] = lambda *_: None
    ) -> Exported:
        """Write papers as JSON lines that `ingest` reads again without loss; see docs/export.md.

        Args:
            file: a path like papers.jsonl or papers.jsonl.gz, which holds all papers in the end or stays as it was; or an open binary file.
            where: filters that all must hold.
            progress: called with the number of papers that were read, and of all.

        Raises:
            CollectionError: the collection is missing, or its index was deleted meanwhile.
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
        """Delete papers with their chunks; return for each id whether it was there."""
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
        """Move the collection to another model while it is searched and written to; run again it goes on.

        Args:
            model: of both levels; or a `spec` (`choose_models` helps) for one level or another mapping profile.
            spec: see `model`.
            progress: called after each window of documents.
            options: fields of MigrateOptions, such as swap=False or gate=GateOptions(skip=True).

        Returns:
            What was done. `refused` says which proof vetoed the swap; the new indexes are kept for inspection then.
        """
        if (model is None) == (spec is None):
            raise InputError("A model or a spec is needed, not both.", "", 'Like migrate("all-mpnet-base-v2").')
        wanted = make_spec(spec or model)
        self._reach()
        return self.migration(progress).run(wanted, self._migrate_options(options))

    def migration(self, progress: Callable[[Progress], None] = lambda _: None) -> Migration:
        """Return the collection's migration, for its single steps: plan, swap, rollback, finish, abort, control, state."""
        bench = MigrationContext(self.client, self.server, self._encoders, self._query_encoders, self._report, progress)
        return Migration(bench, self.name)

    def swap(self, progress: Callable[[Progress], None] = lambda _: None, **options: Any) -> MigrateResult:
        """Move readers and writers to the new model of a migration that is ready; `options` as for `migrate`."""
        self._reach()
        return self.migration(progress).swap(self._migrate_options(options))

    def rollback(self, progress: Callable[[Progress], None] = lambda _: None, **options: Any) -> MigrateResult:
        """Bring the old model back, with the writes and deletes made since the swap; `options` as for `migrate`."""
        self._reach()
        return self.migration(progress).rollback(self._migrate_options(options))

    def verify(self, *, full: bool = False, progress: Callable[[Progress], None] = lambda _: None) -> VerifyReport:
        """Prove the collection: while a migration is under way both sides, else its vectors against its texts.

        Args:
            full: look at every document instead of a sample.
            progress: called after each page of documents.
        """
        self._reach()
        return self.migration(progress).verify(full=full)

    def repair(self) -> Repair:
        """Embed what by-passing writers left without a vector or with a stale one, and delete orphaned chunks."""
        self._reach()
        with self._telling():
            return repair(self.client, self.name, until_settled(self._searcher.resolve), self._encoders)

    def evaluate(self, folder: str | Path, *, split: str = "test", progress: Callable[[int, int], None] = lambda *_: None) -> Evaluation:
        """Measure every mode, fusion and level against the judged queries of a folder in BEIR layout."""
        return evaluate(self._searcher, self.name, read_judged(Path(folder), split), progress=progress)

    def status(self) -> list[LevelStatus]:
        """Return what is live. Raises CollectionError where the collection is missing or contradictory."""
        targets = indexes.resolve(self.client, self.name)
        if targets is None:
            raise missing_collection(self.client, self.name)
        return read_status(self.client, self.name, targets)

    def plan_drop(self, *, leftovers: bool = False) -> DropPlan:
        """Say what a drop would delete, index by index; with `leftovers` only what interrupted work has left. Changes nothing."""
        plan = drop.plan_clearing if leftovers else drop.plan_drop
        return plan(self.client, self.name)

    def drop(self, plan: DropPlan | None = None) -> DropResult:
        """Delete the collection for good: its indexes, those of a migration that nobody works on, its journal entries.

        Args:
            plan: what was shown and confirmed (`plan_drop`); anything else that is there then is refused. None confirms whatever is there.

        Raises:
            BusyError: a migrator, loader or ingest is at work.
            CollectionError: foreign indexes are behind its aliases, or it has changed since it was planned; nothing is deleted.
        """
        return drop.drop(self.client, plan or self.plan_drop())

    def doctor(self) -> list[Check]:
        """Check server and collection; creates the search pipeline where it is missing."""
        return examine_server(self.client, self.server, self.name)

    @cached_property
    def client(self) -> OpenSearch:
        """The opensearch-py client, connected to this collection's server."""
        url = self._url or os.environ.get("OSEMBED_URL") or node.ensure(self._report)
        self._access = Access.from_environment(url, ca_cert=self._ca_cert, insecure=self._insecure)
        return connect(self._access)

    @cached_property
    def server(self) -> Server:
        """What the server says of itself."""
        client = self.client
        return handshake(client, self._access.url)

    def _reach(self) -> None:
        """Shake hands before long work: a server that says it cannot answer now is waited for, one that is not there is not."""
        until_settled(lambda: self.server, report=self._report, only=UnavailableError)

    @property
    def shares_cores(self) -> bool:
        """Whether embedding takes cores from the server: it is on this machine, and so is the CPU that embeds."""
        host = urlsplit(self._access.url if self.client else "").hostname
        return host in ("127.0.0.1", "localhost", "::1") and self._encoders.on_cpu

    def _telling(self) -> AbstractContextManager[None]:
        """Say so where something fails because the collection was dropped."""
        return telling(lambda: self.client, self.name)

    def _migrate_options(self, options: dict[str, Any]) -> MigrateOptions:
        """Make the options of a migration's step; a gentle one yields from here on."""
        chosen: MigrateOptions = build_options(MigrateOptions, options)
        if chosen.gentle:
            self._encoders.be_gentle()
        return chosen

    @cached_property
    def _feed(self) -> Feed:
        def connect() -> tuple[OpenSearch, Server]:
            self._reach()
            self._announce(self.name)
            return self.client, self.server

        return Feed(self.name, connect, self._encoders, self._report)

    def _announce(self, name: str) -> None:
        """Tell the migrations of a collection what this process can embed, from now on."""
        if name not in self._announcers:
            self._announcers[name] = Announcer(self.client, name, self._query_encoders)
            self._announcers[name].start(self)

    def _searcher_of(self, others: Sequence[str]) -> Searcher:
        """Return the searcher of this collection and others, kept for the next search."""
        names = tuple(dict.fromkeys((self.name, *others)))
        if len(names) == 1:
            return self._searcher
        if names not in self._joint_searchers:
            self._joint_searchers[names] = SeveralSearcher(self.client, self.server, names, self._query_encoders)
            for name in names[1:]:  # their migrations, too, want to know what readers can embed
                self._announce(name)
        return self._joint_searchers[names]

    @cached_property
    def _searcher(self) -> Searcher:
        return Searcher(self.client, self.server, self.name, self._query_encoders)
