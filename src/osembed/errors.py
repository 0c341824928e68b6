"""The error tree. The library raises these errors and never prints or exits; the command line translates them in one place.

OsembedError            exit code 1
├── InputError          2  an option, a query, a filter or a file that cannot be used
│   └── NoPapersError   1  an input without papers
├── ModelError          1  model files missing, damaged, unsafe or not understood
├── IdentityError       1  two models, or a model and a collection, that must not be mixed
├── NodeError           1  the embedded OpenSearch could not be installed, started or stopped
├── ClusterError        1  the server cannot be reached, is not OpenSearch, or refuses
│   ├── AuthError       1  credentials or permissions
│   ├── UnsettledError  1  a partial response, or a change that was not acknowledged
│   │   └── LastingError 1  the same after waiting for as long as the settings allow: do not wait again
│   ├── UnavailableError 1  the server is temporarily unavailable: overloaded, short of memory, without a manager
│   ├── MissingError    1  the server says that an index or a document does not exist
│   ├── ConflictError   1  another process changed it first
│   ├── BlockedError    1  an index that is blocked by a person, a full disk or a migration
│   └── RefusedError    1  any other request that the server does not accept
├── PruneError          1  papers that are gone from their folder but were not removed from the collection
├── OutputError         1  a local file that cannot be written
├── CollectionError     1  aliases and indexes that are missing, foreign or contradictory
│   ├── DroppedError    1  a collection that was deleted by `osembed drop`
│   └── NoPaperError    1  a paper that the collection does not have
└── BusyError           3  another process holds what this command needs

Every message has three parts: what was found, why that is a problem, what to do next.
"""

from __future__ import annotations

from typing import Any


class OsembedError(Exception):
    """Base of all errors that osembed raises deliberately.

    Attributes:
        found, why, hint: the three parts of the message; each may be "".
        exit_code: of the command line.
    """

    exit_code = 1

    def __init__(self, found: str, why: str = "", hint: str = "") -> None:
        self.found, self.why, self.hint = found, why, hint
        super().__init__(" ".join(part for part in (found, why, hint) if part))


class InputError(OsembedError):
    """An argument, option or file from the caller cannot be used."""

    exit_code = 2


class NoPapersError(InputError):
    """An input was read to its end, but holds nothing that can be indexed."""

    exit_code = 1


class ModelError(OsembedError):
    """A model's files are missing, damaged, unsafe or not understood."""


class IdentityError(OsembedError):
    """Two models, or a model and a collection, have different vector spaces, which must never mix."""


class NodeError(OsembedError):
    """The embedded OpenSearch could not be installed, started or stopped."""


class ClusterError(OsembedError):
    """The server cannot be reached, is not OpenSearch, or refuses the request."""


class AuthError(ClusterError):
    """The server refuses these credentials or permissions.

    Attributes:
        actions: the missing permissions in OpenSearch's names; () if it names none.
        where: the index that they are for; "" for the cluster.
    """

    actions: tuple[str, ...] = ()
    where: str = ""


class UnsettledError(ClusterError):
    """A response is partial, or a change was not acknowledged. Nothing may be concluded from it."""

    def __init__(self, found: str, why: str = "What was read may be incomplete.", hint: str = "") -> None:
        super().__init__(found, why, hint or "Check the server (`osembed doctor`), then run the command again.")


class LastingError(UnsettledError):
    """A problem of the server has lasted for OSEMBED_PATIENCE_SECONDS, the longest time to wait."""


class UnavailableError(ClusterError):
    """The server is temporarily unavailable: overloaded, short of memory, or without an elected manager."""


class RefusedError(ClusterError):
    """The server does not accept a request.

    Attributes:
        status: the HTTP status.
        kind: OpenSearch's name of the error, such as `resource_already_exists_exception`.
        detail: the response's body.
    """

    def __init__(self, found: str, why: str = "", hint: str = "", *, status: int = 400, kind: str = "", detail: Any = None) -> None:
        super().__init__(found, why, hint)
        self.status, self.kind, self.detail = status, kind, detail


class MissingError(RefusedError):
    """The server says that an index, an alias or a document does not exist (404)."""


class ConflictError(RefusedError):
    """Another process changed or created it first (409)."""


class BlockedError(RefusedError):
    """An index is blocked: made read-only by a person or a full disk, or fenced by a migration."""


class PruneError(OsembedError):
    """Papers are gone from their folder or file but were not removed from the collection.

    Attributes:
        summary: the summary of the ingest, which did everything else.
    """

    def __init__(self, reasons: list[str], summary: Any) -> None:
        super().__init__(" ".join(reasons))
        self.summary = summary


class OutputError(OsembedError):
    """A local file cannot be written, for example because the disk is full."""


class CollectionError(OsembedError):
    """A collection's aliases or indexes are missing, foreign or contradictory."""


class DroppedError(CollectionError):
    """The collection was dropped, perhaps while this command was using it. It is not created again."""


class NoPaperError(CollectionError):
    """The collection has no paper with this id."""


class BusyError(OsembedError):
    """Another process holds what this command needs."""

    exit_code = 3
