"""List the collections on a server."""

from __future__ import annotations

from osembed.collection import Collection
from osembed.errors import UnavailableError
from osembed.opensearch.collections import PARTIAL, CollectionInfo, find_collections, is_partial
from osembed.opensearch.patience import Report, until_settled


def collections(
    url: str | None = None, *, ca_cert: str = "", insecure: bool = False, report: Report = lambda _: None
) -> list[CollectionInfo]:
    """Return the collections on a server, sorted by name. Calls `report` if some may be hidden from this user.

    Args:
        url, ca_cert, insecure, report: as for Collection.

    Raises:
        AuthError: this user may not list indexes; there may be collections nevertheless.
    """
    client = Collection(url=url, ca_cert=ca_cert, insecure=insecure, report=report).client
    found = until_settled(lambda: find_collections(client), report=report, only=UnavailableError)
    if is_partial(client):
        report(PARTIAL)
    return found
