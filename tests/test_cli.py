"""The command line as people and programs meet it: real processes, exit codes, signals."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time

import pytest

from osembed.collection import Collection
from osembed.opensearch.client import Access, connect
from osembed.opensearch.coordination.journal import Journal
from tests.conftest import EXAMPLES, paper, run
from tests.forking import Command, command


def test_a_whole_session(name, url, tmp_path):
    """Ingest, again, search, filter, similar, status, doctor, eval, delete: each says what it did, --json gives it to programs."""
    base = ("--collection", name, "--url", url)
    first = run("ingest", str(EXAMPLES), *base)
    assert first.returncode == 0, first.stderr
    assert "45 read = 45 indexed + 0 unchanged + 0 rejected" in first.stdout
    assert "The model sees all of the text." in first.stdout
    again = json.loads(run("ingest", str(EXAMPLES / "corpus.jsonl"), *base, "--json").stdout)
    assert (again["unchanged"], again["embedded"]) == (45, 0)

    shown = run("search", "how do insects find their way back home", *base, "--size", "2")
    assert "Path integration and the return journey of desert ants" in shown.stdout
    assert "1–2 of" in shown.stdout
    found = json.loads(run("search", "home", *base, "--where", "year>=2018", "--where", "topic=animal navigation", "--json").stdout)
    assert {hit["meta"]["topic"] for hit in found["hits"]} == {"animal navigation"}
    assert json.loads(run("similar", "ant-homing", *base, "--json").stdout)["hits"]
    printed = run("search", "ants", *base, "--print-request", "--level", "papers")
    assert "curl --fail-with-body -sS" in printed.stdout
    assert "all-MiniLM-L6-v2" in run("status", *base).stdout
    assert len(json.loads(run("status", *base, "--json").stdout)) == 2
    assert run("doctor", *base).returncode == 0
    rows = json.loads(run("eval", str(EXAMPLES), *base, "--json").stdout)["rows"]
    assert {row["fusion"] for row in rows} == {"-", "min_max", "l2", "z_score", "rrf"}
    assert "1 deleted, 1 not found" in run("delete", "ant-homing", "nobody", *base).stdout
    assert run("search", "HX-3306", *base, "--mode", "lexical", "--where", "id=ant-homing").stdout.startswith("Nothing found")


def test_the_exit_code_says_whether_papers_are_there(name, url, tmp_path, write, small):
    """Some rejected: 0. All of them: 1, before anything is created, and why."""
    base = ("--collection", name, "--url", url, "--model", str(small.paper_model))
    none = run("ingest", write([paper(1, 5)]), *base)
    assert none.returncode == 1
    assert "1 fewer than 100 words" in none.stderr
    (tmp_path / "README.md").write_text("no paper")
    (tmp_path / "caf\udce9.txt").write_text("Café\n" + paper(2)["text"])
    some = run("ingest", str(tmp_path), *base)
    assert some.returncode == 0, some.stderr
    assert "2 read = 1 indexed + 0 unchanged + 1 rejected" in some.stdout
    assert f"skipped 1 readme, notice or licence files: {tmp_path.name}/README.md" in some.stdout


def test_help_teaches_and_is_quick():
    """Every command has help with an example of what it takes; --help loads neither torch nor opensearch-py."""
    program = (
        "import sys; sys.argv = ['osembed', '--help']\n"
        "from osembed.cli.main import _run\n"
        "_run()\n"
        "print(sorted(set(sys.modules) & {'torch', 'opensearchpy', 'transformers', 'rich.console', 'numpy'}))"
    )
    done = subprocess.run([*command()[:2], program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]")
    for words in (
        ["ingest"],
        ["search"],
        ["similar"],
        ["delete"],
        ["status"],
        ["doctor"],
        ["eval"],
        ["models"],
        ["node"],
        ["node", "start"],
    ):
        shown = run(*words, "--help")
        assert shown.returncode == 0
        assert len(shown.stdout) > 150


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search"], 2, "Missing argument"),
        (["search", " "], 2, "The query is empty"),
        (["search", "how", "do", "ants", "--size", "3"], 2, 'Put it in quotes: osembed search "how do ants"'),
        (["search", "what's", "$new"], 2, "Put it in quotes: osembed search 'what'"),
        (["search", "x", "--collection", "Bad Name"], 2, "cannot be the name of a collection"),
        (["search", "x", "--collection", "nowhere"], 1, "osembed ingest PATH --collection nowhere"),
        (["search", "x", "--weights", "a,b"], 2, "is not a pair of numbers"),
        (["ingest", "./nowhere"], 2, "There is no ./nowhere"),
        (["ingest", str(EXAMPLES), "--field", "title"], 2, "is not a pair of names"),
        (["ingest", str(EXAMPLES), "--preset", "best"], 2, "'best' is not minilm or papers"),
        (["ingest", str(EXAMPLES), "--chunk-words", "10", "--chunk-overlap", "10"], 2, "is not smaller than the window"),
        (["ingest", str(EXAMPLES), "--model", "no-such-model", "--collection", "never"], 1, "not a known model"),
        (["search", "x", "--url", "http://127.0.0.1:9"], 1, "cannot be reached"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes_get_one_clear_sentence(url, arguments, code, said):
    """Exit code and message on stderr; nothing on stdout; no traceback."""
    done = run(*arguments, env={"OSEMBED_URL": url})
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_things_clean(name, url, write, small, number, code):
    """Ctrl-C and SIGTERM: a sentence, the right exit code, no loader left behind, and the same command completes the work."""
    file = write([paper(n, 900) for n in range(400)])
    arguments = ["ingest", file, "--collection", name, "--url", url]
    process = Command(*arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    journal = Journal(connect(Access.from_environment(url)))
    for _ in range(600):  # until it has entered itself as a loader
        if (journal.read(f"collection:{name}") or {}).get("loaders"):
            break
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"run the same command again to continue" in said
    assert b"Traceback" not in said
    state = journal.read(f"collection:{name}")
    assert state is not None
    assert state["loaders"] == {}


def test_standard_input_and_configuration(name, url, tmp_path):
    """JSON lines from a pipe; osembed.toml gives defaults, options and variables win; credentials in it are refused."""
    config = tmp_path / "osembed.toml"
    config.write_text(f'url = "{url}"\ncollection = "{name}"\n\n[ingest]\nmin-words = 5\n\n[search]\nsize = 1\n')
    env = {"OSEMBED_CONFIG": str(config)}
    line = json.dumps({"id": "s", "title": "From a pipe", "text": "six words are quite enough here"}).encode()
    done = run("ingest", "-", env=env, stdin=line + b"\n" + line.replace(b'"s"', b'"t"'))
    assert "2 indexed" in done.stdout
    assert len(json.loads(run("search", "words", "--json", env=env).stdout)["hits"]) == 1
    assert len(json.loads(run("search", "words", "--json", "--size", "2", env=env).stdout)["hits"]) == 2
    assert len(json.loads(run("search", "words", "--json", env={**env, "OSEMBED_SIZE": "2"}).stdout)["hits"]) == 2
    config.write_text('password = "x"\n')
    refused = run("search", "words", env=env)
    assert refused.returncode == 2
    assert "holds credentials" in refused.stderr


def test_models_are_listed():
    """Names, sizes and what is here; the same as JSON."""
    assert "all-MiniLM-L6-v2" in run("models").stdout
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert rows["all-MiniLM-L6-v2"]["folder"]
    assert rows["multi-qa-mpnet-base-dot-v1"]["similarity"] == "dot"


@pytest.mark.parametrize("arguments", [["--help"], ["ingest", "--help"], ["models"], ["models", "--json"]])
def test_a_reader_that_has_left_is_no_failure(arguments):
    """Nobody reads the output: exit 0, and not a word."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command(*arguments), stdout=writing, stderr=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_is_no_error(url):
    """Output into a pipe that closes early ends quietly (F7)."""
    done = subprocess.run(
        f"{' '.join(command()[:1])} -c 'from osembed.cli.main import main; main()' models --json | head -1",
        shell=True,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout.strip() == b"["
    assert b"Traceback" not in done.stderr


def test_a_giant_title_takes_a_few_lines(name, url, write, small):
    """A megabyte of title, a long value: cut on the terminal, whole as JSON; a reader that leaves at once is no failure."""
    giant = paper(1, title="ants " * 200_000, venue="v" * 5000)
    Collection(name, url).ingest([write([giant])], small)
    search = ("search", "species", "--collection", name, "--url", url, "--mode", "lexical")
    shown = run(*search)
    assert shown.returncode == 0
    assert len(shown.stdout) < 4000
    assert len(json.loads(run(*search, "--json").stdout)["hits"][0]["title"]) > 900_000
    piped = f"set -o pipefail; {shlex.join(command(*search, '--json'))} | head -1"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"{", b"")
