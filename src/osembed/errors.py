"""The error tree. The library raises these and never prints or exits; the command line translates them once.

OsembedError            exit code 1
├── InputError          2  an option, a query, a filter or a file that cannot be used as given
├── ModelError          1  model files missing, damaged, unsafe or not understood
├── IdentityError       1  two models, or a model and a collection, that must not be mixed
├── NodeError           1  the embedded OpenSearch could not be installed, started or stopped
├── ClusterError        1  the server cannot be reached, is no OpenSearch, or refuses
│   └── AuthError       1  credentials or permissions
├── CollectionError     1  aliases and indexes that are missing, foreign or contradictory
└── BusyError           3  somebody else holds what this command needs

Every message has three parts: what was found, why that stops us, what to type next.
"""

from __future__ import annotations


class OsembedError(Exception):
    """Base of all errors that osembed raises on purpose."""

    exit_code = 1

    def __init__(self, found: str, why: str = "", hint: str = "") -> None:
        self.found, self.why, self.hint = found, why, hint
        super().__init__(" ".join(part for part in (found, why, hint) if part))


class InputError(OsembedError):
    """Something the caller gave cannot be used as given."""

    exit_code = 2


class ModelError(OsembedError):
    """A model's files are missing, damaged, unsafe or not understood."""


class IdentityError(OsembedError):
    """Two vector spaces that must never mix."""


class NodeError(OsembedError):
    """The embedded OpenSearch could not be installed, started or stopped."""


class ClusterError(OsembedError):
    """The server cannot be reached, is no OpenSearch, or refuses the request."""


class AuthError(ClusterError):
    """The server refuses these credentials or permissions."""


class CollectionError(OsembedError):
    """A collection's aliases or indexes are missing, foreign or contradictory."""


class BusyError(OsembedError):
    """Somebody else holds what this command needs."""

    exit_code = 3
