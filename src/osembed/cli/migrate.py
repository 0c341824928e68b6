"""`osembed migrate` and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from osembed.cli import options
from osembed.cli.meter import Meter
from osembed.cli.migrate_output import behind, pace_text, print_gate, print_plan, print_state, proof_text, where_text
from osembed.cli.output import print_json, print_notice, safe_text
from osembed.errors import InputError

if TYPE_CHECKING:
    from osembed.collection import Collection
    from osembed.migrate.options import MigrateOptions, MigrateResult

REFUSED, WAITING = 4, 5


@click.group(invoke_without_command=True, subcommand_metavar="[STEP]")
@options.connection
@where_text
@pace_text
@proof_text
@options.option("--no-swap", is_flag=True, help="Stop when ready; `osembed migrate swap` continues.")
@options.compute
@options.as_json
@click.pass_context
def migrate(context: click.Context, /, no_swap: bool, as_json: bool, **given: Any) -> int | None:
    """Move a collection to another model while readers and writers continue to use it.

    Copies every document to new indexes with vectors of the new model, keeps up with writes and deletes, verifies the copy, compares search
    quality (the gate), then moves readers and writers in one step. After an interruption, run it again: it continues. Until `finish`,
    `rollback` brings the old model back without losing later writes.

    \b
    osembed migrate plan --model all-mpnet-base-v2      show what it would do and need
    osembed migrate --model all-mpnet-base-v2           run all of it
    osembed migrate status                              show progress, from another terminal
    osembed migrate rollback                            return to the old model, keep later writes
    osembed migrate finish                              delete the old indexes

    Exit codes: 0 done, 3 another process is running it, 4 refused by verification or gate, 5 ready and waiting for `swap`.
    """
    if context.invoked_subcommand:  # click calls the group before its step
        return None
    spec, (collection, chosen) = _spec(given), _open(given)
    with Meter("starting…", given.pop("progress")) as meter:
        result = collection.migrate(None, spec, meter.show_progress, **_fields(replace(chosen, swap=not no_swap)))
    return _conclude(result, as_json)


@migrate.command()
@options.connection
@where_text
@options.compute
@options.as_json
def plan(as_json: bool, **given: Any) -> int:
    """Estimate time, tokens, memory, disk and how much text the model would not see. Creates nothing."""
    spec = _spec(given)
    found = options.open_collection(given).migration().plan(spec)
    if found is None:
        click.echo("{}" if as_json else "Nothing to do: the collection is already as requested.")
        return 0
    if as_json:
        print_json({**asdict(found), "fits": found.fits})
    else:
        print_plan(found)
    return 0 if found.fits else 1


@migrate.command()
@options.connection
@options.option("--report", is_flag=True, help="Print the report of the last verification.")
@options.as_json
def status(report: bool, as_json: bool, **given: Any) -> None:
    """Show the state of a migration."""
    migration = options.open_collection(given).migration()
    state = migration.state
    if report:
        kept = migration.report()
        print_json(kept) if as_json else click.echo(safe_text(kept.get("page", "No verification yet.")))
    elif as_json:
        print_json(asdict(state) if state else {})
    elif state is None:
        click.echo("There has been no migration.")
    else:
        print_state(state)


@migrate.command()
@options.connection
def pause(**given: Any) -> None:
    """Pause a running migration, from another terminal."""
    options.open_collection(given).migration().control(paused=True)
    click.echo("Pausing after the current window.")


@migrate.command()
@options.connection
@options.option("--rate", type=float, metavar="N", help="Change the limit to N documents per second; 0 for no limit.")
def resume(rate: float | None, **given: Any) -> None:
    """Resume a paused migration, or change its pace. (To continue an interrupted one, run `osembed migrate`.)"""
    changes: dict[str, Any] = {"paused": False} if rate is None else {"paused": False, "rate": rate}
    state = options.open_collection(given).migration().control(**changes)
    click.echo("Resumed." if state.lease else "No process is running it: run `osembed migrate --model …` to continue.")


@migrate.command()
@options.connection
@pace_text
@proof_text
@options.compute
@options.as_json
def swap(as_json: bool, **given: Any) -> int:
    """Move readers and writers to the new model. The migration must be ready."""
    return _step(given, as_json, "swap")


@migrate.command()
@options.connection
@pace_text
@behind
@options.compute
@options.as_json
def rollback(as_json: bool, **given: Any) -> int:
    """Bring the old model back, with the writes and deletes made since the swap.

    Documents that cannot be copied back are listed and stop it (exit code 4), unless --allow-failed permits leaving them behind.
    """
    return _step(given, as_json, "rollback")


@migrate.command()
@options.connection
@options.option("--grace", default=600.0, show_default=True, metavar="S", help="Seconds that must have passed since the swap.")
@options.as_json
def finish(grace: float, as_json: bool, **given: Any) -> int:
    """Delete the replaced indexes. After this, `rollback` is no longer possible."""
    return _conclude(options.open_collection(given).migration().finish(grace), as_json)


@migrate.command()
@options.connection
@options.as_json
def abort(as_json: bool, **given: Any) -> int:
    """Cancel the migration before the swap (or after a rollback): delete the new model's indexes."""
    return _conclude(options.open_collection(given).migration().abort(), as_json)


def _step(given: dict[str, Any], as_json: bool, name: str) -> int:
    collection, chosen = _open(given)
    with Meter("starting…", given.pop("progress")) as meter:
        step = getattr(collection, name)
        result: MigrateResult = step(meter.show_progress, **_fields(chosen))
    return _conclude(result, as_json)


def _spec(given: dict[str, Any]) -> Any:
    from osembed.arguments import choose_models

    profile, language = given.pop("profile"), given.pop("language")
    names = [given.pop(name) for name in ("model", "paper_model", "chunk_model", "preset")]
    return replace(choose_models(*names), profile=profile, language=language)


def _open(given: dict[str, Any]) -> tuple[Collection, MigrateOptions]:
    """Return the collection and the options. Embedding is gentle by default if it shares the server's cores."""
    eased, chosen = given.pop("gentle", None), _options(given)
    collection: Collection = options.open_collection(given)
    return collection, replace(chosen, gentle=collection.shares_cores if eased is None else eased)


def _options(given: dict[str, Any]) -> MigrateOptions:
    from osembed.migrate.options import MigrateOptions
    from osembed.migrate.proof.verdict import GateOptions

    gate = GateOptions(
        qrels=given.pop("gate_qrels", None),
        max_drop=_margins(given.pop("max_drop", ())) or GateOptions().max_drop,
        mode=given.pop("gate_mode", None),
        queries=given.pop("gate_queries", None),
        override=given.pop("override", ""),
        skip=given.pop("no_gate", False),
    )
    names = ("rate", "allow_failed", "full")
    return MigrateOptions(gate=gate, **{name: given.pop(name) for name in names if name in given})


def _fields(chosen: MigrateOptions) -> dict[str, Any]:
    return {name: getattr(chosen, name) for name in chosen.__dataclass_fields__}


def _margins(pairs: Sequence[str]) -> dict[str, float]:
    margins = {}
    for pair in pairs:
        metric, _, number = pair.partition("=")
        try:
            margins[metric] = float(number)
        except ValueError:
            raise InputError(f"'{pair}' is not a margin.", "", "Write it like --max-drop ndcg@10=0.01.") from None
    return margins


def _conclude(result: MigrateResult, as_json: bool) -> int:
    code = REFUSED if result.refused else WAITING if result.phase == "ready" else 0
    if as_json:
        print_json({**asdict(result), "exit_code": code})
        return code
    for text in result.notices:
        print_notice(text)
    copied = result.copied
    if copied.seen:
        carried = f", {copied.carried:,} vectors carried over" if copied.carried else ""
        click.echo(f"{copied.seen:,} documents copied, {copied.embedded:,} texts embedded ({copied.tokens:,} tokens){carried}")
    if result.report:
        for check in result.report.checks:
            colour = {"passed": "green", "failed": "red"}.get(check.verdict, "yellow")
            click.echo(f"  {click.style(f'{check.verdict:9}', fg=colour)} {check.name} ({check.level}): {safe_text(check.found)}")
    if result.gate:
        print_gate(result.gate)
    click.echo(_outcome(result))
    return code


def _outcome(result: MigrateResult) -> str:
    models = ", ".join(dict.fromkeys(result.models.values()))
    if result.refused:
        kept = "Nothing has changed for readers; the new indexes are kept for inspection (`osembed migrate abort` deletes them)."
        if result.phase == "return":
            kept = "Nothing has changed for readers: they use the new model. Fix these documents, then run: osembed migrate rollback"
        return f"Refused by {safe_text(result.refused)}. {kept}"
    if result.phase == "ready":
        return "Ready. Swap with: osembed migrate swap"
    if result.phase == "swapped":
        waited = f" Writers waited {result.fence_s:.2f} s." if result.fence_s is not None else ""
        return f"The collection now uses {models}.{waited} To go back: osembed migrate rollback. To finish: osembed migrate finish"
    texts = {
        "nothing to do": "Nothing to do.",
        "returned": "The old model is back, with all writes made since. `osembed migrate abort` deletes the new model's indexes.",
        "finished": "Finished: the replaced indexes are deleted.",
        "aborted": "Aborted: the new indexes are deleted; the collection is as it was.",
    }
    return texts.get(result.phase, result.phase)
