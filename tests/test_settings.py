"""Settings: one schema, drawn from the commands themselves; three ways for every option, and every mistake refused by name."""

from __future__ import annotations

import os
import re
import string

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osembed import limits
from osembed.cli.main import _run, cli
from osembed.cli.options import SettingOption
from osembed.cli.settings import check_settings, schema_of
from osembed.config import VARIABLES, check_environment, config_file, read_defaults
from osembed.embed.native.encoder import DTYPES
from osembed.errors import InputError, OsembedError
from osembed.limits import LIMITS, Number, Whole
from osembed.models.registry import PRESETS
from osembed.search.options import WINDOW
from tests.conftest import ROOT

CONSENT = {"yes", "override", "no-gate", "allow-failed", "max-delete", "insecure"}
SCHEMA = schema_of(cli)


def leaves(group: click.Group, words: tuple[str, ...] = ()):
    """Every command and step with its words."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from leaves(command, (*words, name))


def every_option():
    for words, command in leaves(cli):
        for option in command.params:
            if isinstance(option, click.Option):
                yield pytest.param(words, command, option, id=f"{' '.join(words)} {option.opts[-1]}")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, tmp_path):
    """No setting of this machine, and no osembed.toml."""
    for name in [name for name in os.environ if name.startswith("OSEMBED_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSEMBED_HOME", str(tmp_path / "home"))


@pytest.fixture
def written(tmp_path):
    """Write osembed.toml into the working folder."""

    def write(text: str):
        (tmp_path / "osembed.toml").write_text(text, encoding="utf-8")

    return write


@pytest.fixture
def said(monkeypatch, capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str):
        monkeypatch.setattr("sys.argv", ["osembed", *arguments])
        code = _run()
        out, err = capsys.readouterr()
        return code, out, err

    return run


def in_force(words, option, *arguments: str):
    """What a command would take an option for, from the command line, the environment and the file."""
    context = click.Context(cli, info_name="osembed", default_map=check_settings(cli))
    for number, word in enumerate(words):
        last = number == len(words) - 1
        assert isinstance(context.command, click.Group)
        command = context.command.commands[word]
        context = command.make_context(word, list(arguments) if last else [], parent=context, resilient_parsing=True)
    return context.params[option.name]


def sample(setting):
    """A value that is no default: (on the command line, in a variable, in TOML, as it arrives)."""
    kind = setting.kind
    if kind is bool:
        return [], "yes", "true", True
    if kind == list[str]:
        return ["a=b c", "d=e"], "a=b c; d=e", '["a=b c", "d=e"]', ("a=b c", "d=e")
    if isinstance(kind, Whole):
        return ["7"], "7", "7", 7
    if isinstance(kind, Number):
        return ["2.5"], "2.5", "2.5", 2.5
    text = kind[-1] if isinstance(kind, tuple) else "http://a.example:9200" if setting.name == "url" else "a text"
    return [text], text, f'"{text}"', text


@pytest.mark.parametrize(("words", "command", "option"), [*every_option()])
def test_every_option_has_its_three_ways(words, command, option, monkeypatch, written):
    """Command line, OSEMBED_NAME, osembed.toml under its long name; consent counts on the command line only and is refused elsewhere."""
    if option.name in ("help", "version"):
        return
    assert isinstance(option, SettingOption), "made by options.option"
    setting = option.setting
    line, variable, toml, value = sample(setting)
    table = f"[{'.'.join(words)}]\n{setting.name} = {toml}\n"
    arguments = [word for part in line for word in (f"--{setting.name}", part)] or [f"--{setting.name}"]
    assert in_force(words, option, *arguments) == value
    if setting.name in CONSENT:
        written(table)
        with pytest.raises(InputError, match=rf"'{setting.name}' is in a configuration file"):
            check_settings(cli)
        written("")
        monkeypatch.setenv(setting.variable, variable)
        with pytest.raises(InputError, match=rf"{setting.variable} is set"):
            check_settings(cli)
        return
    for text in (table, f"{setting.name.replace('-', '_')} = {toml}\n"):
        written(text)
        assert in_force(words, option) == value
    monkeypatch.setenv(setting.variable, variable)
    written("")
    assert in_force(words, option) == value


def test_what_asks_a_person_is_known():
    """No other option is consent; what takes a risk is."""
    assert {setting.name for setting in SCHEMA.all_settings().values() if setting.consent} == CONSENT


def test_no_name_means_two_things():
    """One variable has one kind in every command, and is none of those without an option; no setting is called like a command."""
    kinds: dict[str, object] = {}
    names = {word for words, _ in leaves(cli) for word in words}
    for _, command in leaves(cli):
        for option in command.params:
            if isinstance(option, SettingOption):
                setting = option.setting
                assert kinds.setdefault(setting.variable, setting.kind) == setting.kind
                assert setting.variable not in VARIABLES
                assert setting.name not in names
                assert setting.kind not in (int, float), f"{setting.name} has no limits"


def test_the_table_of_limits_agrees_with_what_it_limits():
    """Names and numbers that stand elsewhere, too."""
    assert LIMITS["size"] == Whole(1, WINDOW)
    assert LIMITS["preset"] == tuple(PRESETS)
    assert LIMITS["precision"] == (*DTYPES, "auto")


def test_nearer_wins(written, monkeypatch):
    """Command line before environment before the command's table before the top of the file."""
    [option] = [o for _, command in leaves(cli) if command.name == "search" for o in command.params if o.name == "size"]
    written("size = 2\n[search]\nsize = 3\n")
    assert in_force(("similar",), option) == 2
    assert in_force(("search",), option) == 3
    monkeypatch.setenv("OSEMBED_SIZE", "4")
    assert in_force(("search",), option) == 4
    assert in_force(("search",), option, "--size", "5") == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sze = 3", r"osembed.toml, 'sze': there is no such setting. Did you mean size\?"),
        ("[search]\nchunk-words = 3", r"'chunk-words' in \[search\]: there is no such setting"),
        ("as_json = true", r"'as_json': .* Did you mean json\?"),
        ("[serach]\nsize = 3", r"'serach': there is no such table. Did you mean search\?"),
        ("[migrate.finsh]\ngrace = 3", r"'finsh' in \[migrate\]: .* Did you mean finish\?"),
        ("search = 3", r"'search' is a table, not a setting. Write \[search\]"),
        ("[size]\nx = 1", r"'size': \{'x': 1\} is not a whole number from 1 to 100"),
        ("size = [1, 2]", r"'size': \[1, 2\] is not a whole number from 1 to 100"),
        ('size = "5"', "'5' is not a whole number"),
        ("size = 0", "0 is not a whole number from 1 to 100"),
        ("size = true", "True is not a whole number"),
        ("[migrate]\nrate = nan", "nan is not a number of at least 0"),
        ("json = 1", "1 is not true or false"),
        ('where = "year>=2015"', "is not a list of texts"),
        ("collection = 5", "5 is not a text"),
        ('mode = "hybird"', "Did you mean hybrid"),
        ("x = ", "is not valid TOML"),
        ('url = "http://[::1"', "is not a server URL"),
        ('url = "http://localhost:99999"', "not a number from 1 to 65535"),
    ],
)
def test_a_mistake_in_the_file_is_named(written, said, text, message):
    """File, key, table, value, what it may be, the nearest name; whichever command runs."""
    written(text)
    code, out, err = said("models")
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert "osembed.toml" in err


@pytest.mark.parametrize(
    "text",
    [
        'password = "s3cret"',
        '[search]\nPassword = "s3cret"',
        '[migrate.swap]\nuser = "s3cret"',
        'api_key = "s3cret"',
        'url = "https://me:s3cret@search.example.org"',
        '[ingest]\nurl = "https://s3cret@search.example.org"',
    ],
)
def test_secrets_in_the_file_are_refused_and_not_shown(written, said, text):
    """In any table, and as a part of a URL."""
    written(text)
    code, _, err = said("models")
    assert code == 2
    assert "holds credentials" in err
    assert "s3cret" not in err


def test_a_named_file_must_be_one(tmp_path, monkeypatch):
    """A folder, one that is not there, one that cannot be read, one that is not text: said by name."""
    for name, made, message in [
        ("folder", lambda path: path.mkdir(), "cannot be read: Is a directory"),
        ("gone", lambda path: None, "which does not exist"),
        ("bytes", lambda path: path.write_bytes(b"\xff\xfe"), "is not valid TOML"),
        ("deep", lambda path: path.write_text("a = " + "[" * 100_000), "is not valid TOML"),
        ("x" * 5000, lambda path: None, "cannot be accessed"),
    ]:
        path = tmp_path / name
        made(path)
        monkeypatch.setenv("OSEMBED_CONFIG", str(path))
        with pytest.raises(InputError, match=message):
            check_settings(cli)
    monkeypatch.setenv("OSEMBED_CONFIG", "")
    assert config_file() is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("OSEMBED_SIZE", "abc", "OSEMBED_SIZE: 'abc' is not a whole number from 1 to 100"),
        ("OSEMBED_JSON", "perhaps", "OSEMBED_JSON: 'perhaps' is not true or false"),
        ("OSEMBED_MODE", "lexcal", "Did you mean lexical"),
        ("OSEMBED_RETRY_SECONDS", "abc", "OSEMBED_RETRY_SECONDS: 'abc' is not a number of at least 0"),
        ("OSEMBED_PATIENCE_SECONDS", "inf", "OSEMBED_PATIENCE_SECONDS: 'inf'"),
        ("OSEMBED_NODE_HEAP", "lots", "OSEMBED_NODE_HEAP: 'lots' is not a size of memory"),
    ],
)
def test_a_mistake_in_the_environment_is_named(monkeypatch, said, name, text, message):
    """At the door, whichever command runs."""
    monkeypatch.setenv(name, text)
    code, out, err = said("models")
    assert (code, out) == (2, "")
    assert message in err


def test_a_misspelt_variable_is_noticed(monkeypatch, said):
    """It may be another program's, so the command runs; but it says so."""
    monkeypatch.setenv("OSEMBED_COLECTION", "reviews")
    code, _, err = said("config")
    assert code == 0
    assert "OSEMBED_COLECTION is not a setting of osembed; it changes nothing. Did you mean OSEMBED_COLLECTION?" in err


def test_help_comes_however_wrong_the_settings_are(written, said):
    """Who looks for the right name gets it."""
    written("sze = 3")
    code, out, _ = said("search", "--help")
    assert (code, "--size" in out) == (0, True)


def test_what_is_in_force(written, said, monkeypatch):
    """Each setting with its origin; where commands differ, each has its line; secrets are never shown."""
    import json

    written('collection = "reviews"\n[search]\nsize = 3\nwhere = ["a=b"]\n[migrate.finish]\ngrace = 5\n')
    monkeypatch.setenv("OSEMBED_PASSWORD", "s3cret")
    monkeypatch.setenv("OSEMBED_URL", "https://me:s3cret@search.example.org")
    monkeypatch.setenv("OSEMBED_DEVICE", "cpu")
    code, out, err = said("config")
    assert (code, err) == (0, "")
    assert "s3cret" not in out
    assert "file: osembed.toml" in out
    assert re.search(r"collection +reviews +file", out)
    assert re.search(r"size +3 +file +search\b", out)
    assert re.search(r"size +10 +default +similar\b", out)
    assert re.search(r"device +cpu +environment", out)
    assert re.search(r"OSEMBED_PASSWORD +set +environment", out)
    _, out, _ = said("config", "--json")
    assert "s3cret" not in out
    rows = {(row["setting"], *row["commands"][:1]): row for row in json.loads(out)["settings"]}
    assert rows["where", "search"]["value"] == ["a=b"]
    assert rows["grace", "migrate finish"] == {"setting": "grace", "value": 5.0, "from": "file", "commands": ["migrate finish"]}


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "x", "--chunk-words", "0"],
        ["ingest", "x", "--max-chunks", "0"],
        ["ingest", "x", "--chunk-overlap", "-1"],
        ["ingest", "x", "--chunk-words", "10", "--chunk-overlap", "10"],
        ["ingest", "x", "--chunk-overlap", "512"],
        ["ingest", "x", "--shards", "0"],
        ["ingest", "x", "--replicas", "-1"],
        ["ingest", "x", "--min-words", "-1"],
        ["ingest", "x", "--profile", "fais"],
        ["ingest", "x", "--preset", "paper"],
        ["ingest", "x", "--device", "gpu"],
        ["ingest", "x", "--precision", "fp8"],
        ["search", "x", "--size", "0"],
        ["search", "x", "--size", "101"],
        ["search", "x", "--size", "9" * 40],
        ["search", "x", "--page", "-1"],
        ["search", "x", "--page", "11"],
        ["search", "x", "--passages", "21"],
        ["search", "x", "--weights", "nan,1"],
        ["search", "x", "--weights", "1"],
        ["search", "x", "--weights", "-1,2"],
        ["search", "x", "--fusion", "minmax"],
        ["search", "x", "--level", "paper"],
        ["search", "x", "--hits", "paper"],
        ["similar", "x", "--size", "1e3"],
        ["migrate", "--model", "x", "--rate", "nan"],
        ["migrate", "--model", "x", "--rate", "-1"],
        ["migrate", "--model", "x", "--allow-failed", "-1"],
        ["migrate", "--model", "x", "--max-drop", "ndcg@10=nan"],
        ["migrate", "--model", "x", "--gate-mode", "words"],
        ["migrate", "finish", "--grace", "-1"],
        ["node", "logs", "--lines", "-1"],
    ],
)
def test_numbers_and_names_are_checked_at_the_door(said, monkeypatch, arguments):
    """A usage error that names the option, before any server is looked for."""
    monkeypatch.setattr("osembed.opensearch.node.ensure", lambda *_: pytest.fail("a server was looked for"))
    code, out, err = said(*arguments)
    assert (code, out) == (2, "")
    named = arguments[-2].lstrip("-").replace("max-drop", "margin").replace("page", "[Pp]age")
    assert re.search(named.replace("-", "[-_]"), err)


words = st.text(st.characters(codec=None), max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
calm = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal(attempt) -> str:
    """What one of our own errors says; "" where there is none. Anything else is a fault."""
    try:
        attempt()
    except OsembedError as error:
        return str(error)
    return ""


@calm
@given(name=st.sampled_from(sorted(LIMITS)), value=anything)
def test_any_value_fits_or_is_refused(name, value):
    """Whatever is given, from Python or as text: a value within the limits, or an InputError that names the option."""
    found, limit = refusal(lambda: limits.checked_value(name, value)), LIMITS[name]
    if found:
        assert name in found
    else:
        fits = limits.checked_value(name, value)
        assert fits in limit if isinstance(fits, str) else limit.low <= fits <= limit.high


@calm
@given(name=st.sampled_from([*SCHEMA.all_settings(), "x"]) | words.filter(lambda text: "\x00" not in text), text=words | st.just("1e400"))
def test_any_environment_is_read_or_refused(name, text):
    """Nothing but our own errors."""
    variable = f"OSEMBED_{name.upper().replace('-', '_')}"
    found = refusal(lambda: list(check_environment(SCHEMA, {variable: text})))
    assert not found or variable in found


keys = st.sampled_from([*SCHEMA.all_settings(), *SCHEMA.steps, "user", "[search]"]) | st.text(
    string.ascii_letters + "-_", min_size=1, max_size=8
)
values = st.sampled_from(
    ["1", "-1", "nan", "inf", "true", '"x"', '""', "[]", "[1]", '["a=b"]', "{}", "{a=1}", "1979-05-27", '"http://[::1"', "9" * 400]
)


@calm
@given(lines=st.lists(st.tuples(keys, values) | st.tuples(st.sampled_from([f"[{name}]" for name in SCHEMA.steps]), st.none()), max_size=5))
def test_any_file_is_read_or_refused(tmp_path, lines):
    """Nothing but our own errors, and they name the file."""
    file = tmp_path / "osembed.toml"
    file.write_text("\n".join(key if value is None else f"{key} = {value}" for key, value in lines))
    found = refusal(lambda: read_defaults(file, SCHEMA))
    assert not found or "osembed.toml" in found


@calm
@given(data=st.binary(max_size=60))
def test_any_bytes_are_no_traceback(tmp_path, data):
    """A file that is no TOML at all."""
    file = tmp_path / "osembed.toml"
    file.write_bytes(data)
    found = refusal(lambda: read_defaults(file, SCHEMA))
    assert not found or "osembed.toml" in found


def test_a_fault_of_our_own_goes_to_a_file(said, monkeypatch, tmp_path):
    """One line: what happened, where the traceback is, that it be reported; the file is for its owner alone and holds no value."""

    def broken(*_: object) -> None:
        raise RuntimeError("a wheel\nhas come off")

    monkeypatch.setattr("osembed.models.registry.registry", broken)
    code, out, err = said("models", "--json")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    [log] = (tmp_path / "home" / "faults").iterdir()
    assert (
        f"This is a bug in osembed: RuntimeError: a wheel has come off. The traceback is in {log}; please report it with that file." in err
    )
    assert log.stat().st_mode & 0o777 == 0o600
    assert "models --json" in log.read_text()
    assert "raise RuntimeError" in log.read_text()
    monkeypatch.setenv("OSEMBED_DEBUG", "1")
    assert "Traceback (most recent call last)" in said("models")[2]


def test_a_fault_that_cannot_be_kept_is_printed(said, monkeypatch, tmp_path):
    """The data folder is a file: the traceback comes out instead of another one."""
    (tmp_path / "home").write_text("")
    monkeypatch.setattr("osembed.models.registry.registry", lambda: 1 / 0)
    code, _, err = said("models")
    assert code == 1
    assert err.count("Traceback") == 1
    assert "could not be saved" in err


def test_a_file_of_this_machine_is_no_fault_of_ours(said, monkeypatch):
    """A path that may not be used is named, in one line."""

    def refused() -> None:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("osembed.models.registry.registry", refused)
    code, _, err = said("models")
    assert (code, err) == (1, "Error: /some/file cannot be used: Permission denied.\n")


def test_all_settings_stand_in_the_docs():
    """docs/settings.md lists every option with its commands, and every variable; what is listed exists."""
    page = (ROOT / "docs" / "settings.md").read_text()
    assert table() in page
    for name in VARIABLES:
        assert f"`{name}`" in page


def table() -> str:
    """The options by name as docs/settings.md lists them: `python -m tests.test_settings` prints it."""
    where: dict[str, list[str]] = {}
    found = {}
    for path, command in leaves(cli):
        for option in command.params:
            if isinstance(option, SettingOption):
                found[option.setting.name] = option.setting
                where.setdefault(option.setting.name, []).append(" ".join(path))
    rows = []
    for name in sorted(found):
        setting, commands = found[name], where[name]
        kind = "a list of texts, separated by `;` in the variable" if setting.kind == list[str] else limits.describe(setting.kind)
        shown = ", ".join(commands) if len(commands) <= 5 else f"{', '.join(commands[:3])} and {len(commands) - 3} more"
        rows.append(f"| `{name}` | {'the command line only' if setting.consent else f'`{setting.variable}`'} | {kind} | {shown} |")
    return "\n".join(["| option | variable | allowed values | commands |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table())
