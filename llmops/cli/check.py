"""`llmops check`: validate definitions, references, templates and data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from llmops.cli.exits import Exit
from llmops.cli.session import Session, complete_names, json_option, open_session, print_record, say
from llmops.definitions.reference import FOLDERS, Kind
from llmops.errors import Finding, UsageError, nearest

KINDS: tuple[Kind, ...] = ("prompt", "chain", "index", "dataset", "experiment")
USERS_OF_CODE: tuple[Kind, ...] = ("chain", "experiment")
SCHEMAS = ("project", *KINDS)


@click.command("check")
@click.argument("paths", nargs=-1, metavar="[PATH]...", shell_complete=complete_names(*KINDS))
@click.option("--schema", metavar="KIND", help="Print the JSON Schema of a kind, for editors.")
@json_option
def command(paths: tuple[str, ...], schema: str | None, as_json: bool) -> int:
    """Validate the project, or what stands at PATH: no network, no model, no key.

    PATH is a file, a folder of definitions, or a name; a name that two kinds share is written with its folder.
    Exits 2 with what is wrong, where, and what would be right.
    """
    if schema is not None:
        return _print_schema(schema)
    from llmops.check import check_workspace, find_workspace_notes

    session = open_session()
    targets = find_targets(session, paths)
    findings = check_workspace(session.workspace, targets)
    for note in find_workspace_notes(session.workspace, targets):
        say(f"note: {note}")
    if as_json:
        print_record([vars(finding) for finding in findings])
    elif findings:
        for finding in findings:
            click.echo(_told(finding))
        click.echo(f"{len(findings)} finding{'s' if len(findings) != 1 else ''}")
    else:
        click.echo(_counted(_all(session) if targets is None else targets))
    return Exit.WRONG if findings else Exit.DONE


def find_targets(session: Session, paths: tuple[str, ...]) -> list[tuple[Kind, str]] | None:
    """Return the definitions that paths and names mean; None for the whole project.

    Raises UsageError for a path that holds none, with what is near it.
    """
    found: dict[tuple[Kind, str], None] = {}
    for path in paths:
        inside = _inside(session.root, path)
        if inside in {".", "llmops.yaml", "experiments/releases.jsonl"}:
            return None
        found.update(dict.fromkeys(_at(session, path, inside)))
    return list(found) if paths else None


def _inside(root: Path, path: str) -> str | None:
    """Return where an existing file or folder stands in the project; None for a name, or what is outside."""
    try:
        full = Path(path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return full.relative_to(root.resolve()).as_posix() if full.is_relative_to(root.resolve()) else None


def _at(session: Session, path: str, inside: str | None) -> Iterator[tuple[Kind, str]]:
    workspace = session.workspace
    folder, _, file = (inside or "").partition("/")
    if file.startswith("indexes"):
        folder, file = FOLDERS["index"], file.removeprefix("indexes").removeprefix("/")
    kinds = [kind for kind, other in FOLDERS.items() if other == folder]
    if not kinds:
        if "@" in path:
            raise UsageError(f"{path}: check looks at the work tree; write the name without @")
        yield session.target(path, KINDS)
    elif not file:
        yield from ((kind, name) for kind in kinds for name in workspace.names(kind))
    elif folder == "chains" and file.endswith(".py"):
        # Steps and evaluators use it, by itself or through what imports it.
        yield from ((kind, name) for kind in USERS_OF_CODE for name in workspace.names(kind))
    else:
        yield kinds[0], _name(path, file, kinds[0])


def _name(path: str, file: str, kind: Kind) -> str:
    suffixes = (f".{kind}.yaml", ".jsonl") if kind == "dataset" else (f".{kind}.yaml",)
    suffix = next((suffix for suffix in suffixes if file.endswith(suffix)), None)
    if suffix is None or "/" in file:
        raise UsageError(f"{path} is no {kind}: those are {FOLDERS[kind]}/NAME.{kind}.yaml")
    return file.removesuffix(suffix)


def _told(finding: Finding) -> str:
    """Return a finding for a terminal or a CI log: whatever it quotes from files stays text."""
    from llmops.report.texts import one_line

    hint = None if finding.hint is None else one_line(finding.hint)
    return str(Finding(one_line(finding.path), finding.line, finding.column, one_line(finding.message), hint))


def _all(session: Session) -> list[tuple[Kind, str]]:
    return [(kind, name) for kind in KINDS for name in session.workspace.names(kind)]


def _counted(targets: list[tuple[Kind, str]]) -> str:
    counts = {kind: sum(1 for found, _ in targets if found == kind) for kind in KINDS}
    parts = [f"{n} {_plural(kind) if n != 1 else kind}" for kind, n in counts.items() if n]
    return f"ok: {', '.join(parts) or 'nothing to check'}"


def _plural(kind: Kind) -> str:
    return "indexes" if kind == "index" else f"{kind}s"


def _print_schema(kind: str) -> int:
    if kind not in SCHEMAS:
        hint = nearest(kind, SCHEMAS) or f"kinds: {', '.join(SCHEMAS)}"
        raise UsageError(f"no kind is called {kind!r}; {hint}")
    from llmops.definitions.editors import editor_schema

    click.echo(editor_schema(kind), nl=False)
    return Exit.DONE
