"""The error tree. The library raises these and never prints or exits; the command line translates them once.

OsembedError            exit code 1
├── InputError          2  an option, a query, a filter or a file that cannot be used as given
│   └── NoPapersError   1  an input of which no record is a paper
├── ModelError          1  model files missing, damaged, unsafe or not understood
├── IdentityError       1  two models, or a model and a collection, that must not be mixed
├── NodeError           1  the embedded OpenSearch could not be installed, started or stopped
├── ClusterError        1  the server cannot be reached, is not an OpenSearch, or refuses
│   ├── AuthError       1  credentials or permissions
│   ├── UnsettledError  1  an answer that covers a part only, or a change that was not acknowledged
│   │   └── LastingError 1  it has been waited for as long as the settings say: nobody waits again
│   ├── UnavailableError 1  the server says that it cannot answer now: overloaded, short of memory, without a manager
│   ├── MissingError    1  the server says that an index or a document is not there
│   ├── ConflictError   1  somebody else changed it first
│   ├── BlockedError    1  an index that is blocked, by a person, a full disk or a migration
│   └── RefusedError    1  any other request that the server does not accept
├── PruneError          1  papers that are gone from their folder, and were not removed from the collection
├── OutputError         1  a file of this machine that cannot be written
├── CollectionError     1  aliases and indexes that are missing, foreign or contradictory
│   ├── DroppedError    1  a collection that was taken away by `osembed drop`
│   └── NoPaperError    1  a paper that the collection does not have
└── BusyError           3  somebody else holds what this command needs

Every message has three parts: what was found, why that stops us, what to type next.
"""

from __future__ import annotations

from typing import Any


class OsembedError(Exception):
    """Base of all errors that osembed raises on purpose."""

    exit_code = 1

    def __init__(self, found: str, why: str = "", hint: str = "") -> None:
        self.found, self.why, self.hint = found, why, hint
        super().__init__(" ".join(part for part in (found, why, hint) if part))


class InputError(OsembedError):
    """Something the caller gave cannot be used as given."""

    exit_code = 2


class NoPapersError(InputError):
    """An input was read to its end, and nothing of it can be indexed."""

    exit_code = 1


class ModelError(OsembedError):
    """A model's files are missing, damaged, unsafe or not understood."""


class IdentityError(OsembedError):
    """Two vector spaces that must never mix."""


class NodeError(OsembedError):
    """The embedded OpenSearch could not be installed, started or stopped."""


class ClusterError(OsembedError):
    """The server cannot be reached, is not an OpenSearch, or refuses the request."""


class AuthError(ClusterError):
    """The server refuses these credentials or permissions.

    Attributes:
        actions: the permissions that lack, as OpenSearch names them; () where it names none.
        where: the index that they are for, "" for the cluster.
    """

    actions: tuple[str, ...] = ()
    where: str = ""


class UnsettledError(ClusterError):
    """An answer covers a part only, or a change was not acknowledged: nothing may be concluded from it."""

    def __init__(self, found: str, why: str = "What was read may be incomplete.", hint: str = "") -> None:
        super().__init__(found, why, hint or "See to the server (`osembed doctor`), then run the command again.")


class LastingError(UnsettledError):
    """What troubles the server has lasted for as long as it may be waited for (OSEMBED_PATIENCE_SECONDS)."""


class UnavailableError(ClusterError):
    """The server says that it cannot answer now: it is overloaded, short of memory, or without an elected manager."""


class RefusedError(ClusterError):
    """The server does not accept a request.

    Attributes:
        status: of the answer.
        kind: OpenSearch's name for it, such as `resource_already_exists_exception`.
        detail: the answer's body.
    """

    def __init__(self, found: str, why: str = "", hint: str = "", *, status: int = 400, kind: str = "", detail: Any = None) -> None:
        super().__init__(found, why, hint)
        self.status, self.kind, self.detail = status, kind, detail


class MissingError(RefusedError):
    """The server says that an index, an alias or a document is not there (404)."""


class ConflictError(RefusedError):
    """Somebody else changed or created it first (409)."""


class BlockedError(RefusedError):
    """An index is blocked: made read-only by a person or a full disk, or fenced by a migration."""


class PruneError(OsembedError):
    """Papers are gone from their folder or file, and were not removed from the collection.

    Attributes:
        summary: what the ingest did all the same.
    """

    def __init__(self, reasons: list[str], summary: Any) -> None:
        super().__init__(" ".join(reasons))
        self.summary = summary


class OutputError(OsembedError):
    """A file of this machine cannot be written: its disk is full, perhaps."""


class CollectionError(OsembedError):
    """A collection's aliases or indexes are missing, foreign or contradictory."""


class DroppedError(CollectionError):
    """The collection was dropped, perhaps while this command was using it; nothing of it is made anew."""


class NoPaperError(CollectionError):
    """The collection has no paper of this id."""


class BusyError(OsembedError):
    """Somebody else holds what this command needs."""

    exit_code = 3
