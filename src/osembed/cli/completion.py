"""`osembed completion`: shell completion of commands and options."""

from __future__ import annotations

import click

PROGRAM = "osembed"
_ASKED_BY = "_OSEMBED_COMPLETE"  # the shell sets this variable to ask for completions; click answers before any command runs


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes a shell complete commands and options.

    \b
    bash   osembed completion bash > ~/.local/share/bash-completion/completions/osembed
    zsh    osembed completion zsh > ~/.zfunc/_osembed      (with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc)
    fish   osembed completion fish > ~/.config/fish/completions/osembed.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # SHELL can only be one that click supports
    script = kind(context.find_root().command, {}, PROGRAM, _ASKED_BY)
    click.echo(script.source_template % script.source_vars())  # not `source()`, which starts the shell to find out its version
