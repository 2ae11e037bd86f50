"""Where a gate leaves its verdicts: files that were asked for, and what GitHub's runner reads of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import click

from llmops.cli.exits import Exit
from llmops.cli.files import write_text
from llmops.cli.session import Session, look, print_record, say, utc_now
from llmops.errors import LlmopsError
from llmops.secrets import scrub

if TYPE_CHECKING:
    from llmops.records import Run, Verdict
    from llmops.stores.journal import Journal

SUMMARY_LIMIT = 1024 * 1024
"""Bytes that GitHub takes of one step's summary."""


@dataclass(frozen=True)
class Faces:
    """The files to write. markdown, html: one an experiment, named after it where there are several."""

    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None
    has_annotations: bool = False
    is_several: bool = False


def show_verdict(
    session: Session, journal: Journal, run: Run, verdict: Verdict, faces: Faces, *, is_text: bool
) -> None:
    """Print a verdict for people, and write its own files."""
    if is_text:
        from llmops.report.terminal import verdict_text

        how = look()
        text = verdict_text(verdict, journal, width=how.width, colour=how.colour, ascii_only=how.ascii_only)
        click.echo(text, color=how.colour)
    write_faces(journal, run, verdict, faces)
    if faces.has_annotations:
        from llmops.cli.streams import print_commands
        from llmops.report.annotations import verdict_annotations

        print_commands(verdict_annotations(verdict, folder=_folder(session)))


def write_faces(journal: Journal, run: Run, verdict: Verdict, faces: Faces) -> None:
    """Write the files of a verdict alone."""
    if faces.markdown is not None:
        from llmops.report.comment import verdict_comment

        _write(faces.markdown, verdict, faces, verdict_comment(verdict, journal), "comment")
    if faces.html is not None:
        from llmops.report.html import run_page

        page = run_page(run, run.comparisons, journal, now=utc_now(), verdict=verdict)
        _write(faces.html, verdict, faces, page, "page")


def _write(path: Path, verdict: Verdict, faces: Faces, text: str, what: str) -> None:
    if faces.is_several:
        path = path.with_name(f"{path.stem}.{verdict.experiment}{path.suffix}")
    write_text(path, text)
    say(f"{what} written to {path}")


def _folder(session: Session) -> str:
    """Return the project's folder inside its repository; GitHub names files from the repository's root."""
    from llmops.definitions.trees import git

    with suppress(LlmopsError):
        return git(session.root, "rev-parse", "--show-prefix").decode("utf-8", "replace").strip()
    return ""


def close_verdicts(
    verdicts: Sequence[Verdict], code: int, faces: Faces, environment: Mapping[str, str], *, as_json: bool
) -> None:
    """Write what all verdicts share: JUnit, the step's summary and its outputs; and print the records."""
    if faces.junit is not None:
        from llmops.report.junit import verdicts_junit

        write_text(faces.junit, verdicts_junit(verdicts))
        say(f"JUnit written to {faces.junit}")
    if summary := environment.get("GITHUB_STEP_SUMMARY"):
        _summarise(Path(summary), verdicts)
    if outputs := environment.get("GITHUB_OUTPUT"):
        _append(Path(outputs), "".join(_output(*pair) for pair in _outputs(verdicts, code)))
    if as_json:
        records = [verdict.model_dump(mode="json") for verdict in verdicts]
        print_record(records if faces.is_several or not records else records[0])


def _summarise(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Add the verdicts, without any case, as far as there is room."""
    from llmops.report.comment import verdict_comment

    for verdict in verdicts:
        text = f"{verdict_comment(verdict, None)}\n\n"
        with suppress(OSError):
            size = path.stat().st_size if path.exists() else 0
            if size + len(text.encode()) > SUMMARY_LIMIT:
                say("the step's summary is full: the verdict stands above only")
                return
        _append(path, text)


def _outputs(verdicts: Sequence[Verdict], code: int) -> list[tuple[str, str]]:
    from llmops.gate import gravest
    from llmops.report.verdict_texts import verdict_headline

    outcome = gravest([verdict.outcome for verdict in verdicts]) if verdicts else "none"
    told = "\n".join(verdict_headline(verdict).text for verdict in verdicts)
    return [("outcome", outcome), ("exit_code", f"{int(Exit(code))}"), ("verdicts", told)]


def _output(name: str, value: str) -> str:
    """Return one output of a step; nobody can foresee the line that ends it."""
    end = f"llmops-{token_hex(16)}"
    return f"{name}<<{end}\n{value}\n{end}\n"


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(scrub(text))
    except OSError as error:
        say(f"{path.name} cannot be written: {error.strerror or error}")
