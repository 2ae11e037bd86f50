"""A verdict as the Markdown of a pull request's comment, and as the shorter note of its MLflow run.

Text that others wrote stands in fences or escaped: it notifies nobody, closes nothing, loads and links nothing. The
words are those of `verdict_texts`; how long the whole may be is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llmops.definitions.base import identity_of, is_name, short
from llmops.records import CandidateVerdict, Outcome, Row, Verdict
from llmops.report import texts
from llmops.report.cases import Source
from llmops.report.grids import Grid
from llmops.report.html import value_lines
from llmops.report.markdown import NOTE_LIMIT, escape, fence, html_text, joined, table
from llmops.report.pairs import Gallery, Pair, flipped
from llmops.report.verdict_texts import (
    candidate_title,
    changes,
    gate_details,
    gate_texts,
    gates_grid,
    gravest_first,
    safe_link,
    ungated_grid,
    verdict_caveats,
    verdict_facts,
    verdict_title,
)

COMMENT_LIMIT = 65_536
"""Characters that GitHub takes in a comment; GitLab and Azure DevOps take more."""
_MOST_CASES = 10
_LONGEST_ANSWER = 1_000
_FEW_GATES = 20


def comment_marker(experiment: str) -> str:
    """Return the first line of an experiment's comment, which shows as nothing: the comment to update starts with it.

    Text in the comment can hold the marker of another experiment, but never at its start.
    """
    name = experiment if is_name(experiment) else short(identity_of(experiment))
    return f"<!-- llmops-verdict: {name} -->"


def verdict_comment(verdict: Verdict, rows: Source | None) -> str:
    """Return a verdict as a comment of at most `COMMENT_LIMIT` characters, with the cases that changed folded away.

    rows: None shows no cases. What does not fit is left out from the end, and the last line says where it stands.
    """
    blocks = _blocks(verdict, rows)
    marker = comment_marker(verdict.experiment)
    return f"{marker}\n{joined(blocks, _rest(verdict), COMMENT_LIMIT - len(marker) - 1)}"


def verdict_note(verdict: Verdict) -> str:
    """Return a verdict as a note of at most `NOTE_LIMIT` characters, without HTML and without cases."""
    ungated = (iter([table(grid)]) for grid in map(ungated_grid, gravest_first(verdict)) if grid.rows)
    return joined((*_said_first(verdict), *_tables(verdict), *ungated), _rest(verdict), NOTE_LIMIT)


def _rest(verdict: Verdict) -> str:
    return f"The rest did not fit: {_whole(verdict)}"


def _whole(verdict: Verdict) -> str:
    """Return where to look instead: at its link, if it is one, else the command that shows the run."""
    link = safe_link(verdict.link)
    if link is not None:
        return f"[case by case in MLflow](<{link}>)"
    return f"llmops report {escape(texts.one_line(verdict.run_id))}"


# --- blocks: each in the forms it may take, longest first ---------------------------------------------------

Forms = Iterator[str]


def _blocks(verdict: Verdict, rows: Source | None) -> Iterator[Forms]:
    yield from _said_first(verdict)
    yield from _tables(verdict)
    for candidate in gravest_first(verdict):
        comparison = changes(verdict, candidate)
        if comparison is not None and rows is not None:
            yield from map(_gallery, flipped(comparison, rows, most=_MOST_CASES))
    for candidate in gravest_first(verdict):
        yield iter([_folded(f"{candidate_title(candidate)}: what each gate stands on", _details(candidate))])
    for grid in map(ungated_grid, gravest_first(verdict)):
        if grid.rows:
            yield iter([_folded(grid.title, table(grid))])


def _said_first(verdict: Verdict) -> Iterator[Forms]:
    yield iter([f"### {escape(verdict_title(verdict))}"])
    yield iter([f"**Why:** {escape(texts.one_line(verdict.reason))}"])
    for caveat in verdict_caveats(verdict):
        yield iter([f"**Mind:** {escape(caveat.text)}"])
    link = f" [Case by case in MLflow](<{found}>)." if (found := safe_link(verdict.link)) else ""
    yield iter([f"{escape(verdict_facts(verdict))}.{link}"])


def _tables(verdict: Verdict) -> Iterator[Forms]:
    for candidate in gravest_first(verdict):
        yield _table(candidate)


def _table(candidate: CandidateVerdict) -> Forms:
    """Yield the gates as a table; then those alone that do not pass; then a few of them."""
    grid = gates_grid(candidate)
    yield table(grid)
    yield table(replace(grid, notes=()))
    for most in (_FEW_GATES, _FEW_GATES // 4, 1):
        yield table(_gravest_rows(grid, most))


def _gravest_rows(grid: Grid, most: int) -> Grid:
    rows = sorted(grid.rows, key=lambda row: (row[-1] == Outcome.PASS, row[-1] != Outcome.FAIL))
    left = len(rows) - most
    notes = (f"{texts.count(left, 'gate')} more",) if left > 0 else ()
    return replace(grid, rows=tuple(rows[:most]), notes=notes)


def _details(candidate: CandidateVerdict) -> str:
    lines = []
    for gate in candidate.gates:
        said = gate_texts(gate)
        lines.append(f"- **{said.says}** {escape(said.gate)}: {escape(said.figures)}")
        lines += [f"  - {label}: {escape(text)}" for label, text in gate_details(gate)]
    return "\n".join(lines) or "There are no gates."


def _folded(summary: str, inside: str) -> str:
    return f"<details><summary>{html_text(summary)}</summary>\n\n{inside}\n\n</details>"


def _gallery(gallery: Gallery) -> Forms:
    """Yield the cases folded away, then fewer and fewer of them."""
    n = len(gallery.pairs)
    for most in dict.fromkeys((n, min(n, _MOST_CASES // 2), min(n, 2), 1)):
        n_more = gallery.n_more + n - most
        more = [f"{n_more:,} more."] if n_more else []
        yield _folded(gallery.title, "\n\n".join([*map(_case, gallery.pairs[:most]), *more]))


def _case(pair: Pair) -> str:
    """Return a case: what was asked and expected, and under it the outputs side by side."""
    blocks = [f"**Case {escape(texts.one_line(pair.case_id))}**: {escape(pair.said)}"]
    if pair.case is not None:
        asked = [(name, value_lines(value)) for name, value in pair.case.inputs.items()]
        asked.append(("expected", value_lines(pair.case.expected)))
        blocks.append(_fenced("\n".join(f"{name}: {text}" for name, text in asked)))
    names = [f"{side.name} ({side.role})" if side.role else side.name for side in pair.sides]
    header = "".join(f"<th>{html_text(texts.one_line(name))}</th>" for name in names)
    answers = [_fenced(_answer(side.row)) for side in pair.sides]
    cells = "\n\n</td><td>\n\n".join(answers)
    blocks.append(f"<table><tr>{header}</tr><tr><td>\n\n{cells}\n\n</td></tr></table>")
    return "\n\n".join(blocks)


def _answer(row: Row | None) -> str:
    output = None if row is None else row.output
    if output is None:
        return "(no output)"
    if output.error is not None:
        return f"({output.error.kind}: {output.error.message})"
    return value_lines(output.value)


def _fenced(text: str) -> str:
    """Return a text as a block of code that nothing in it can end; a long one says how much is left out."""
    shown = texts.printable(text[:_LONGEST_ANSWER])
    left = len(text) - _LONGEST_ANSWER
    more = [f"({texts.count(left, 'more character')})"] if left > 0 else []
    return fence([shown, *more])
