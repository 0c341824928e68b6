"""`osembed completion`: the shell knows commands and options."""

from __future__ import annotations

import click

PROGRAM = "osembed"
_ASKED_BY = "_OSEMBED_COMPLETE"  # the variable by which the shell asks; click answers it before any command runs


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands and options.

    \b
    bash   osembed completion bash > ~/.local/share/bash-completion/completions/osembed
    zsh    osembed completion zsh > ~/.zfunc/_osembed      (with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc)
    fish   osembed completion fish > ~/.config/fish/completions/osembed.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # the choice lists only those that click has
    script = kind(context.find_root().command, {}, PROGRAM, _ASKED_BY)
    click.echo(script.source_template % script.source_vars())  # not `source()`: that starts the shell to ask for its version
