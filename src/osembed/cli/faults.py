"""Bugs in osembed: write the traceback to a file that only its owner can read, and print one line that points to it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from osembed.cli.output import print_error, safe_text
from osembed.paths import data_folder


def report_fault(error: BaseException) -> None:
    """Save the traceback of an unexpected error and print one line about it. With OSEMBED_DEBUG, print the traceback too."""
    import traceback

    text = "".join(traceback.format_exception(error))
    if os.environ.get("OSEMBED_DEBUG"):
        print_error(text)
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    try:
        where = f"The traceback is in {_keep(text)}; please report it {_tracker()}"
    except OSError as full:  # without a file the traceback must be printed, or it is lost
        print_error("" if os.environ.get("OSEMBED_DEBUG") else text)
        where = f"The traceback could not be saved ({full.strerror}); please report it with the output above"
    print_error(f"{click.style('Error:', fg='red')} This is a bug in osembed: {safe_text(said)}. {safe_text(where)}.")


def _keep(text: str) -> Path:
    """Write a traceback to a new file and return its path. Raises OSError if it cannot be written."""
    import platform
    from importlib.metadata import version

    folder = data_folder() / "faults"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    head = f"osembed {version('osembed')}, Python {platform.python_version()}, {platform.platform()}\n"
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", errors="backslashreplace") as opened:
        # Only the names of commands and options are saved: values may be secret.
        opened.write(f"{head}{' '.join(_bare(argument) for argument in sys.argv[1:])}\n\n{text}")
    return file


def _bare(argument: str) -> str:
    return argument.partition("=")[0] if argument.startswith("-") else argument if argument.isalpha() else "…"


def _tracker() -> str:
    """Return where to report a bug, from the package's own metadata."""
    from importlib.metadata import metadata

    links = dict(link.split(", ", 1) for link in metadata("osembed").get_all("Project-URL") or [])
    place = next((url for label, url in links.items() if label.lower() in ("issues", "tracker", "bug tracker")), "")
    return f"at {place}, with that file" if place else "with that file"
