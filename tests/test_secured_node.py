"""The secured server of the tests does what it says, so that what the tests find with it can be believed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from osembed.errors import AuthError
from osembed.opensearch.client import connect, handshake
from tests.secured import ROLES, SecuredNode


@pytest.fixture
def stem(secured: SecuredNode) -> Iterator[str]:
    """A name that no other test uses; its indexes are deleted afterwards."""
    stem = f"t{uuid.uuid4().hex[:10]}"
    yield stem
    for row in secured.request("GET", f"/_cat/indices/{stem}*?format=json")[1]:
        secured.request("DELETE", f"/{row['index']}")


@pytest.mark.parametrize("user", list(ROLES))
def test_role_users_reach_the_server(user, secured):
    """Each role user passes TLS, the password and the handshake, with the role of its name."""
    access = secured.access(user)
    assert handshake(connect(access), access.url).version_text == secured.version
    assert secured.request("GET", "/_plugins/_security/authinfo", user=user)[1]["roles"] == [user]


def test_a_stranger_is_refused(secured):
    """A user without a role has a password that is right and may do nothing."""
    status, answer = secured.request("GET", "/", user="stranger")
    assert (status, answer["error"]["type"]) == (403, "security_exception")
    with pytest.raises(AuthError):
        connect(secured.access("stranger")).info()


def test_the_environment_is_all_that_a_program_needs(secured, stem, write, small):
    """A command finds the server, its authority and its user in the environment, and works under the writer's role."""
    from tests.conftest import paper, run

    env = secured.as_user(secured.grant("writer", stem))
    done = run("ingest", write([paper(1)]), "--collection", stem, "--model", small.paper_model, env=env)
    assert done.returncode == 0, done.stderr
    assert secured.request("GET", f"/{stem}/_count")[1]["count"] == 1


def test_a_role_without_an_action_lacks_it_at_once(secured, stem):
    """What a role allows changes with `grant`, without waiting; other actions stay."""
    secured.request("PUT", f"/{stem}-1", {})
    user = secured.grant("migrator", stem)
    assert secured.request("POST", f"/{stem}-1/_refresh", user=user)[0] == 200
    assert secured.grant("migrator", stem, without="indices:admin/refresh") == user
    status, answer = secured.request("POST", f"/{stem}-1/_refresh", user=user)
    assert (status, "indices:admin/refresh" in answer["error"]["reason"]) == (403, True)
    assert secured.request("GET", f"/{stem}-1/_search", user=user)[0] == 200


def test_the_forbidden_filter_turns_a_refusal_into_less(secured, stem):
    """A search of two indexes, one of them forbidden: refused without the filter, half an answer with it."""
    for index in (f"{stem}-1", f"other-{stem}"):
        secured.request("PUT", f"/{index}/_doc/1?refresh=true", {"t": 1})
    user = secured.grant("reader", stem)
    both = f"/{stem}-1,other-{stem}/_search"
    try:
        secured.set_forbidden_filter(False)
        assert secured.request("GET", both, user=user)[0] == 403
        secured.set_forbidden_filter(True)
        status, answer = secured.request("GET", both, user=user)
        assert (status, answer["hits"]["total"]["value"]) == (200, 1)
    finally:
        secured.set_forbidden_filter(False)
        secured.request("DELETE", f"/other-{stem}")


def test_with_nothing_left_a_search_finds_nothing_at_all(secured, stem):
    """The filter's second switch: a search of a forbidden index alone looks like one of no shard."""
    secured.request("PUT", f"/other-{stem}", {})
    user = secured.grant("reader", stem)
    try:
        secured.set_forbidden_filter(True)
        assert secured.request("GET", f"/other-{stem}/_search", user=user)[0] == 403
        secured.set_forbidden_filter(True, empty=True)
        status, answer = secured.request("GET", f"/other-{stem}/_search", user=user)
        assert (status, answer["_shards"]["total"]) == (200, 0)
    finally:
        secured.set_forbidden_filter(False)
        secured.request("DELETE", f"/other-{stem}")


def test_limits_hide_documents_and_fields(secured, stem):
    """Document- and field-level security of a granted role hold: the user sees two documents of three, and not their venue."""
    for number in range(3):
        secured.request("PUT", f"/{stem}-1/_doc/{number}?refresh=true", {"number": number, "venue": "x"})
    user = secured.grant("migrator", stem, dls='{"range": {"number": {"gte": 1}}}', fls=["~venue"])
    hits = secured.request("GET", f"/{stem}-1/_search", user=user)[1]["hits"]["hits"]
    assert sorted(hit["_source"] == {"number": int(hit["_id"])} and hit["_id"] for hit in hits) == ["1", "2"]


def test_killed_and_started_again_it_has_its_data(secured, stem):
    """After kill -9 and a start the address, the users and an acknowledged document are the same."""
    secured.request("PUT", f"/{stem}-1/_doc/1", {"t": 1})
    user = secured.grant("reader", stem)
    secured.kill()
    with pytest.raises(OSError, match="refused"):
        secured.request("GET", "/")
    secured.start()
    assert secured.request("GET", f"/{stem}-1/_doc/1")[1]["_source"] == {"t": 1}
    assert secured.request("GET", f"/{stem}-1/_search", user=user)[0] == 200


def test_older_servers_have_the_same_users(secured_old):
    """The servers of other versions start, too, and know the role users and the stranger."""
    for user in ROLES:
        assert secured_old.request("GET", "/", user=user)[1]["version"]["number"] == secured_old.version
    assert secured_old.request("GET", "/", user="stranger")[0] == 403
