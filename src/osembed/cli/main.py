"""Entry point: the command group, the configuration file, and the one place that turns errors into messages and exit codes."""

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
from osembed.cli.output import print_error, safe_text
from osembed.cli.settings import check_settings
from osembed.errors import OsembedError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminated(BaseException):
    """SIGTERM, raised in the main thread so that everything unwinds as it does for Ctrl-C.

    Attributes:
        raised: whether SIGTERM arrived. Libraries that wait in native code turn this exception into a KeyboardInterrupt.
    """

    raised = False


class ReaderLeft(Exception):
    """The program that reads our output has closed it, like `head`."""


class Commands(click.Group):
    """A group that distinguishes closed output from a failure: click and rich exit with a failure in both cases."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the command line; may print help."""
        with _leaving():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, with the defaults from osembed.toml."""
        with _leaving():
            if not set(ctx.help_option_names) & set(ctx.args):  # --help must work even if the settings are invalid
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
    osembed ingest papers/            read, split, embed and index a folder of papers
    osembed search "how do ants …"    search by words and meaning, show the best passages
    osembed migrate --model M         move to another model while readers and writers continue

    Without --url, a real OpenSearch is installed and started on this machine. Every option can also be set as an environment variable
    (--min-words as OSEMBED_MIN_WORDS) or in osembed.toml (`osembed config` shows what is in force). Set credentials only as OSEMBED_USER and
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
        print_error(f"{click.style('Error:', fg='red')} {safe_text(error)}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort, Terminated):
        what, code = ("Terminated", 143) if Terminated.raised else ("Interrupted", 130)
        print_error(f"{what}. Acknowledged writes are kept; run the same command again to continue.")
        return code
    except (ReaderLeft, BrokenPipeError):  # the reader wants no more output: not an error
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            return _unexpected(error)
        _drop_output()
        what = f"{error.filename} cannot be written" if error.filename else "The output cannot be written"
        print_error(
            f"{click.style('Error:', fg='red')} {safe_text(what)}: {error.strerror}. Free some space, then run the same command again."
        )
        return 1
    except Exception as error:
        report_fault(error)
        return 1
    return result if isinstance(result, int) else 0


def _unexpected(error: OSError) -> int:
    """Report which local file cannot be used. An error that names no file is a bug in osembed."""
    if error.filename is None or not error.strerror:
        report_fault(error)
    else:
        print_error(f"{click.style('Error:', fg='red')} {safe_text(error.filename)} cannot be used: {error.strerror}.")
    return 1


def _drop_output() -> None:
    """Send what is still buffered for stdout to /dev/null: flushing it at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(*_: object) -> None:
    Terminated.raised = True
    raise Terminated
