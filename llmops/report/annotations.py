"""A verdict as workflow commands of GitHub: a remark on the line of the prompt that changed, or of the gate.

Only names, numbers and sentences of ours stand in them, and never what a model wrote; what a runner would take for the
end of a part is %-escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmops.records import CandidateVerdict, GateResult, Outcome, Place, Verdict
from llmops.report import texts
from llmops.report.verdict_texts import gate_texts, sides, verdict_headline, verdict_title

MOST = 10
"""Annotations of one level that GitHub shows of one step."""
_MESSAGE = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = _MESSAGE | {":": "%3A", ",": "%2C"}


def verdict_annotations(verdict: Verdict, *, folder: str = "") -> list[str]:
    """Return a line for the verdict and one for each gate that does not pass, at most `MOST` of a level.

    error where it stops a merge, warning where it is open and only warns, notice otherwise.
    folder: of the project inside its repository, for GitHub names files from there.
    """
    headline = verdict_headline(verdict).text
    lines = [
        _line(
            _level(verdict, verdict.outcome), _whole_place(verdict), verdict_title(verdict), headline, folder
        )
    ]
    for candidate in verdict.candidates:
        lines += (_gate_line(verdict, candidate, gate, folder) for gate in _not_passed(candidate))
    counts: dict[str, int] = {}
    kept = []
    for line in lines:
        level = line.split(" ")[0]
        counts[level] = counts.get(level, 0) + 1
        if counts[level] <= MOST:
            kept.append(line)
    return kept


def _not_passed(candidate: CandidateVerdict) -> Iterator[GateResult]:
    return (gate for gate in candidate.gates if gate.outcome is not Outcome.PASS)


def _level(verdict: Verdict, outcome: Outcome, *, decides: bool = True) -> str:
    if outcome is Outcome.PASS or not decides:
        return "notice"
    if outcome is Outcome.FAIL:
        return "error"
    return "error" if verdict.outcome is Outcome.INCONCLUSIVE and verdict.blocks else "warning"


def _whole_place(verdict: Verdict) -> Place:
    """Return where the verdict as a whole is remarked: on what one candidate changed, else in the experiment."""
    if verdict.outcome is not Outcome.PASS and len(verdict.candidates) == 1 and verdict.candidates[0].changed:
        return verdict.candidates[0].changed[0]
    return verdict.place


def _gate_line(verdict: Verdict, candidate: CandidateVerdict, gate: GateResult, folder: str) -> str:
    place = next(iter(candidate.changed), gate.place or verdict.place)
    title = f"{verdict.experiment}, {sides(candidate)}"
    level = _level(verdict, gate.outcome, decides=gate.blocks)
    return _line(level, place, title, gate_texts(gate).sentence, folder)


def _line(level: str, place: Place, title: str, message: str, folder: str) -> str:
    properties = {"file": _path(folder, place.path)}
    if place.line is not None:
        properties["line"] = str(place.line)
        properties |= {} if place.column is None else {"col": str(place.column)}
    properties["title"] = texts.one_line(title)
    said = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in properties.items())
    return f"::{level} {said}::{_escaped(texts.one_line(message), _MESSAGE)}"


def _path(folder: str, path: str) -> str:
    """Return a file as GitHub names it; a line break in a name is escaped with the rest."""
    return texts.visible(texts.printable(f"{folder.strip('/')}/{path}".lstrip("/")))


def _escaped(text: str, signs: Mapping[str, str]) -> str:
    return "".join(signs.get(character, character) for character in text)
