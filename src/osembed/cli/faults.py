"""Our own faults: the traceback goes to a file that only its owner can read, and one line says what happened and where it stands."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from osembed.cli.output import complain, safe
from osembed.paths import data_folder


def report_fault(error: BaseException) -> None:
    """Keep the traceback of an error that nobody expected, and say so in one line; with OSEMBED_DEBUG print it, too."""
    import traceback

    text = "".join(traceback.format_exception(error))
    if os.environ.get("OSEMBED_DEBUG"):
        complain(text)
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    try:
        where = f"Its traceback is in {_keep(text)}; please report it {_tracker()}"
    except OSError as full:  # it has to go somewhere
        complain("" if os.environ.get("OSEMBED_DEBUG") else text)
        where = f"Its traceback could not be kept ({full.strerror}); please report it with what is printed above"
    complain(f"{click.style('Error:', fg='red')} A fault of osembed: {safe(said)}. {safe(where)}.")


def _keep(text: str) -> Path:
    import platform
    from importlib.metadata import version

    folder = data_folder() / "faults"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    head = f"osembed {version('osembed')}, Python {platform.python_version()}, {platform.platform()}\n"
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", errors="backslashreplace") as opened:
        # Of the command line only its words and options: values may be secret.
        opened.write(f"{head}{' '.join(_bare(argument) for argument in sys.argv[1:])}\n\n{text}")
    return file


def _bare(argument: str) -> str:
    return argument.partition("=")[0] if argument.startswith("-") else argument if argument.isalpha() else "…"


def _tracker() -> str:
    """Say where to report, as the package's own metadata names it."""
    from importlib.metadata import metadata

    links = dict(link.split(", ", 1) for link in metadata("osembed").get_all("Project-URL") or [])
    place = next((url for label, url in links.items() if label.lower() in ("issues", "tracker", "bug tracker")), "")
    return f"at {place}, with that file" if place else "with that file"
