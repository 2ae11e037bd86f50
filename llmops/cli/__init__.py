"""The command line: a command parses, calls one step, and prints what `report` makes of it.

Each command is a file of its own, imported when it is asked for, so that `--help` answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from llmops import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "init": "Start a project that runs at once, without a key.",
    "check": "Validate definitions, references, templates and data.",
    "render": "Show the messages a prompt becomes.",
    "run": "Carry out an experiment, or one prompt or chain.",
    "score": "Score a run again, without calling the models under test.",
    "compare": "Compare two variants, runs or versions, case by case.",
    "gate": "Judge an experiment by its gates, and exit with the verdict.",
    "report": "Show a run, or the history of a name.",
    "promote": "Let an alias point at what passed, or take it back.",
    "convert": "Read other tools' prompt, chain and eval files, or write them.",
    "sync": "Deliver to MLflow what is still waiting.",
    "doctor": "Say what is missing on this machine or in this project.",
}

FEW_CYCLES = 20_000
"""Objects more than before, when Python looks for cycles; its own 700 makes a sixth of what imports take."""


class Commands(click.Group):
    """The group of commands; a command's module is imported when its name is given."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"llmops.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from llmops.errors import nearest

            ctx.fail(f"no command is called {name!r}; {nearest(name, COMMANDS) or 'see llmops --help'}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names of commands without importing them."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=says) for name, says in COMMANDS.items()]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [item for item in found if item.value.startswith(incomplete)] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog='\b\nTab completion: eval "$(_LLMOPS_COMPLETE=bash_source llmops)"\n(zsh_source and fish_source elsewhere)',
)
@click.version_option(__version__, prog_name="llmops")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def root() -> None:
    """Experiment with prompts and chains as code.

    \b
    prompt -> chain -> run -> score -> record -> compare -> promote
    """


def main() -> None:
    """Run the command line and exit with its code; no traceback for anything foreseeable."""
    from llmops.cli.streams import commands_stopped, open_streams

    gc.set_threshold(FEW_CYCLES)
    open_streams()
    with commands_stopped(os.environ):
        code = _carried_out()
    gc.freeze()  # to look for cycles once more on the way out would take as long as most imports
    sys.exit(code)


def _carried_out() -> int:
    """Carry out the command that was given and return its exit code, whatever comes of it."""
    from llmops.cli.exits import Exit

    try:
        code = root.main(standalone_mode=False, prog_name="llmops")
    except click.ClickException as error:
        error.show()
        return Exit.WRONG
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - one command's fault is told in a line; --debug shows the rest
        return _told(error)
    return code if isinstance(code, int) else Exit.DONE


def _told(error: Exception) -> int:
    """Say what went wrong, for people, and return the exit code."""
    from llmops.cli.exits import Exit, exit_of
    from llmops.errors import LlmopsError

    traced = _traceback(error) if "--debug" in sys.argv[1:] else ""
    if isinstance(error, ImportError):  # the imports below may fail too, and no key stands in this one's text
        click.echo(traced + _missing(error), err=True)
        return Exit.WRONG
    from llmops.report.texts import printable
    from llmops.secrets import scrub_told

    click.echo(scrub_told(printable(traced + _words(error))), err=True)
    return exit_of(error) if isinstance(error, LlmopsError) else Exit.INCOMPLETE


def _traceback(error: Exception) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def _missing(error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    if package in {"", "llmops"}:
        return _fault(error)
    return f"error: the Python package {package} does not load ({error}): pip install {package}"


def _words(error: Exception) -> str:
    from llmops.errors import DefinitionError, LlmopsError

    if isinstance(error, DefinitionError):
        n = len(error.findings)
        return f"{error}\n{n} finding{'s' if n != 1 else ''}"
    if isinstance(error, LlmopsError):
        return f"error: {error}"
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return "error: out of memory; run the same command again to go on, with more memory or less --concurrency"
    if isinstance(error, OSError):
        return f"error: {error}"
    return _fault(error)


def _fault(error: Exception) -> str:
    return (
        f"error: {type(error).__name__}: {error}\n"
        "    this is a fault of llmops; run again as `llmops --debug ...` and report what it prints"
    )
