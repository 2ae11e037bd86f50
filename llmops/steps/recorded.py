"""The `recorded` step: an output that another system gave is looked up, and nothing is called.

It is a program like any other, so that a run scores, compares and reports it as it does what it carried out itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmops.definitions.dataset import Dataset
from llmops.definitions.documents import brief
from llmops.definitions.recorded import Coverage, RecordedFile, RecordedOutput
from llmops.definitions.workspace import Workspace
from llmops.errors import UsageError
from llmops.records import ModelVersion, Span, Status, Usage
from llmops.steps.base import Context, Halted, Place, Program, with_error


class NoOutput(Halted):
    """The other system gave no output. kind: `unrecorded` where its file has none, `recorded` where it failed."""

    def __init__(self, kind: Literal["unrecorded", "recorded"], message: str) -> None:
        super().__init__(Status.ERROR, message)
        self._kind = kind

    @property
    def kind(self) -> str:
        """What an output's error calls it."""
        return self._kind


@dataclass(frozen=True)
class RecordedProgram:
    """The outputs of a file, each given for its case and repeat.

    Its identity is that of all outputs in the file, so that a changed row makes every cell of the variant anew: that
    costs nothing but scoring, and what evaluators paid for an equal output is in the journal.
    """

    name: str
    file: RecordedFile
    kind: Literal["recorded"] = "recorded"
    models: Mapping[str, ModelVersion] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Program] = field(default_factory=dict)
    least_calls: int = 0

    @property
    def identity(self) -> str:
        """Hash of what the outputs are."""
        return self.file.identity

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is the recorded one.

        Raises NoOutput when there is none.
        """
        index = context.trace.open()
        case_id = context.case_id or ""
        repeat = context.repeat if isinstance(context.repeat, int) else context.repeat[0]
        found = self.file.find(case_id, repeat)
        if found is None:
            found = RecordedOutput(case_id, repeat)
        context.trace.figures = _figures(found)
        span = _span(place, index, inputs, found)
        error = self._why_none(found)
        if error is not None:
            context.trace.close(with_error(span, error))
            raise error
        return context.trace.close(span)

    def _why_none(self, found: RecordedOutput) -> NoOutput | None:
        if found.error is not None:
            return NoOutput("recorded", found.error)
        if found.output is not None:
            return None
        again = f" (repeat {found.repeat})" if found.repeat else ""
        return NoOutput("unrecorded", f"{self.file.path} has no output for case {brief(found.id)}{again}")


def open_recorded(workspace: Workspace, path: str, at: str | None = None) -> RecordedProgram:
    """Return the outputs of a file, ready to be given.

    at: `git:REV` for the file as it stands there.

    Raises UsageError when there is none, and DefinitionError for what is wrong with it.
    """
    if at is not None:
        kind, _, revision = at.partition(":")
        if kind != "git":
            raise UsageError(
                f"{path}: recorded outputs are never released, so {at!r} names none; write git:REV"
            )
        workspace = workspace.at(revision)
    return RecordedProgram(path.rpartition("/")[2], workspace.recorded(path))


def recorded_notes(
    programs: Mapping[str, Program], dataset: Dataset, split: str | None, repeats: int
) -> list[str]:
    """Return what should be known of each variant's recorded outputs: cases without one, ids of no case.

    programs: of all variants, by name.
    """
    return [
        f"variant {variant}: {note}"
        for variant, program in programs.items()
        if isinstance(program, RecordedProgram)
        for note in coverage_notes(program.file, dataset, split, repeats)
    ]


def find_coverage(file: RecordedFile, dataset: Dataset, split: str | None, repeats: int) -> Coverage:
    """Return how a file of outputs fits a split; an id of another split is no stranger."""
    return file.coverage(((case.id, split in (None, case.split)) for case in dataset.cases), repeats)


def coverage_notes(file: RecordedFile, dataset: Dataset, split: str | None, repeats: int) -> Iterator[str]:
    """Yield what should be known of how a file of outputs fits the cases under test."""
    found = find_coverage(file, dataset, split, repeats)
    if found.n_without:
        cells = "cases" if repeats == 1 else "cells"
        some = _some([brief(case_id) for case_id in found.without], found.n_without)
        yield f"{file.path} has no output for {found.n_without:,} of {found.n_cells:,} {cells}{some}; each is an error"
    if found.n_unknown:
        some = _some(
            [brief(row) + (f" ({hint})" if hint else "") for row, hint in found.unknown], found.n_unknown
        )
        yield f"{found.n_unknown:,} of {found.n_rows:,} outputs in {file.path} are of no case of {dataset.name}{some}"
    if found.n_beyond:
        yield f"{found.n_beyond:,} outputs in {file.path} are of repeats that are not asked for"


def _some(shown: Sequence[str], n: int) -> str:
    return f": {', '.join(shown)}{', ...' if n > len(shown) else ''}" if shown else ""


def _figures(found: RecordedOutput) -> dict[str, Any]:
    """What the other system said of itself; what it did not say stays unknown, its cost too."""
    figures = {
        "latency_s": found.latency_s,
        "ttft_s": found.ttft_s,
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "cost_usd": found.cost_usd,
        "returned_model": found.model,
    }
    return figures if found.error is None else {**figures, "value": found.output}


def _span(place: Place, index: int, inputs: Mapping[str, Any], found: RecordedOutput) -> Span:
    usage = None
    if found.input_tokens is not None and found.output_tokens is not None:
        usage = Usage(input_tokens=found.input_tokens, output_tokens=found.output_tokens)
    return place.span(
        index,
        "recorded",
        inputs,
        output=found.output,
        model=found.model,
        usage=usage,
        cost_usd=found.cost_usd,
        duration_s=found.latency_s or 0.0,
        ttft_s=found.ttft_s,
    )
