"""Entry point: the group, the configuration file, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from osembed.cli import collections, completion, drop, evaluate, ingest, manage, migrate, models, node, search
from osembed.cli.completion import PROGRAM
from osembed.cli.output import complain, safe
from osembed.errors import InputError, OsembedError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SECRETS = ("password", "user")


class Terminated(BaseException):
    """SIGTERM, raised in the main thread so that everything unwinds as for Ctrl-C."""


class ReaderLeft(Exception):
    """The reader of our output has closed it."""


class Commands(click.Group):
    """A group that tells a closed output from a failure: click and rich both end the process as if the command had failed."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the command line; may print help."""
        with _leaving():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _leaving():
            return super().invoke(ctx)


@contextmanager
def _leaving() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderLeft from error
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        raise ReaderLeft from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="osembed")
@click.pass_context
def cli(context: click.Context) -> None:
    """Turn papers into a hybrid (BM25 + vector) search index on OpenSearch.

    \b
    osembed ingest papers/            read, cut, embed and index a folder of papers
    osembed search "how do ants …"    words and meaning together, best passages shown
    osembed migrate --model M         move to another model while it is searched and written to

    Without --url a real OpenSearch is installed and started on this machine. Every option can also be set as an environment variable
    (--min-words as OSEMBED_MIN_WORDS) or in osembed.toml; credentials only as OSEMBED_USER and OSEMBED_PASSWORD (or OSEMBED_PASSWORD_FILE).
    """
    context.default_map = _configured(cli.commands)


for command in (
    ingest.ingest,
    search.search,
    search.similar,
    collections.list_collections,
    collections.count,
    collections.show,
    collections.export,
    completion.completion,
    manage.delete,
    migrate.migrate,
    manage.verify,
    manage.status,
    manage.doctor,
    drop.drop,
    evaluate.evaluate,
    models.models,
    node.node,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit.

    0 done, 1 failed, 2 usage, 3 busy, 4 verification or gate refused, 5 ready for the swap, 130 and 143 interrupted after a clean stop.
    """
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run())


def _run() -> int:
    try:
        result = cli(prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OsembedError as error:
        complain(f"{click.style('Error:', fg='red')} {safe(error)}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        complain("Interrupted. What was acknowledged is kept; the same command goes on from here.")
        return 130
    except Terminated:
        complain("Terminated. What was acknowledged is kept; the same command goes on from here.")
        return 143
    except (ReaderLeft, BrokenPipeError):  # that is the reader's right
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _drop_output()
        what = f"{error.filename} cannot be written" if error.filename else "The output cannot be written"
        complain(f"{click.style('Error:', fg='red')} {safe(what)}: {error.strerror}. Make room there, then run the same command again.")
        return 1
    return result if isinstance(result, int) else 0


def _drop_output() -> None:
    """Let what is still buffered for stdout go nowhere: the interpreter would fail at it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(*_: object) -> None:
    raise Terminated


def _configured(commands: Mapping[str, click.Command]) -> dict[str, Any]:
    """Read osembed.toml: top-level keys are defaults of every command, tables those of one and of its steps."""
    file = Path(os.environ.get("OSEMBED_CONFIG", "osembed.toml"))
    if not file.exists():
        return {}
    try:
        settings = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid TOML: {error}.") from error
    if any(name in settings for name in _SECRETS):
        raise InputError(f"{file} holds credentials.", "Files like it get shared.", "Set OSEMBED_USER and OSEMBED_PASSWORD_FILE.")
    common = {name.replace("-", "_"): value for name, value in settings.items() if not isinstance(value, dict)}
    defaults: dict[str, Any] = {}
    for name, command in commands.items():
        own = {**common, **{key.replace("-", "_"): value for key, value in settings.get(name, {}).items()}}
        steps = command.commands if isinstance(command, click.Group) else {}
        defaults[name] = {**own, **dict.fromkeys(steps, own)}
    return defaults
