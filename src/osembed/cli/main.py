"""Entry point: the group, the configuration file, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from osembed.cli import collections, completion, config, drop, evaluate, ingest, manage, migrate, models, node, search, watch
from osembed.cli.completion import PROGRAM
from osembed.cli.faults import report_fault
from osembed.cli.output import complain, safe
from osembed.cli.settings import check_settings
from osembed.errors import OsembedError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminated(BaseException):
    """SIGTERM, raised in the main thread so that everything unwinds as for Ctrl-C.

    Attributes:
        raised: whether it was. Libraries that wait in native code make a KeyboardInterrupt of it.
    """

    raised = False


class ReaderLeft(Exception):
    """The reader of our output has closed it."""


class Commands(click.Group):
    """A group that tells a closed output from a failure: click and rich both end the process as if the command had failed."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the command line; may print help."""
        with _leaving():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with the defaults of osembed.toml."""
        with _leaving():
            if not set(ctx.help_option_names) & set(ctx.args):  # help is given however wrong the settings are
                ctx.default_map = check_settings(self)
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
def cli() -> None:
    """Turn papers into a hybrid (BM25 + vector) search index on OpenSearch.

    \b
    osembed ingest papers/            read, cut, embed and index a folder of papers
    osembed search "how do ants …"    words and meaning together, best passages shown
    osembed migrate --model M         move to another model while it is searched and written to

    Without --url a real OpenSearch is installed and started on this machine. Every option can also be set as an environment variable
    (--min-words as OSEMBED_MIN_WORDS) or in osembed.toml (`osembed config` shows what is in force); credentials only as OSEMBED_USER and
    OSEMBED_PASSWORD (or OSEMBED_PASSWORD_FILE).
    """


for command in (
    ingest.ingest,
    watch.watch,
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
    config.config,
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
    except (KeyboardInterrupt, click.Abort, Terminated):
        what, code = ("Terminated", 143) if Terminated.raised else ("Interrupted", 130)
        complain(f"{what}. What was acknowledged is kept; the same command goes on from here.")
        return code
    except (ReaderLeft, BrokenPipeError):  # that is the reader's right
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            return _unexpected(error)
        _drop_output()
        what = f"{error.filename} cannot be written" if error.filename else "The output cannot be written"
        complain(f"{click.style('Error:', fg='red')} {safe(what)}: {error.strerror}. Make room there, then run the same command again.")
        return 1
    except Exception as error:
        report_fault(error)
        return 1
    return result if isinstance(result, int) else 0


def _unexpected(error: OSError) -> int:
    """Say which file of this machine cannot be used; what names none is a fault of ours."""
    if error.filename is None or not error.strerror:
        report_fault(error)
    else:
        complain(f"{click.style('Error:', fg='red')} {safe(error.filename)} cannot be used: {error.strerror}.")
    return 1


def _drop_output() -> None:
    """Let what is still buffered for stdout go nowhere: the interpreter would fail at it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(*_: object) -> None:
    Terminated.raised = True
    raise Terminated
