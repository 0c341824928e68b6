"""Which collections a server has."""

from __future__ import annotations

from osembed.collection import Collection, Report
from osembed.errors import UnavailableError
from osembed.opensearch.collections import PARTIAL, CollectionInfo, find_collections, is_partial
from osembed.opensearch.patience import until_settled


def collections(
    url: str | None = None, *, ca_cert: str = "", insecure: bool = False, report: Report = lambda _: None
) -> list[CollectionInfo]:
    """Return the collections of a server, by name; `report` is told where this user may not be shown all of them.

    Args:
        url, ca_cert, insecure, report: as for Collection.

    Raises AuthError where this user may not ask which indexes there are: that is not to say that there are none.
    """
    client = Collection(url=url, ca_cert=ca_cert, insecure=insecure, report=report).client
    found = until_settled(lambda: find_collections(client), report=report, only=UnavailableError)
    if is_partial(client):
        report(PARTIAL)
    return found
