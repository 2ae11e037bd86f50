"""A verdict in whose every text stands what somebody meant to do harm with, and the rows of its cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmops.definitions.dataset import Case
from llmops.records import (
    CandidateVerdict,
    DatasetVersion,
    ErrorInfo,
    EvaluatorVersion,
    Flip,
    GateResult,
    Looks,
    Outcome,
    Output,
    Place,
    Row,
    Run,
    Side,
    Source,
    Status,
    Verdict,
)
from tests.report.verdicts import NOW

HERE = Path(__file__).parent
MARKDOWN: list[str] = json.loads((HERE / "markdown_payloads.json").read_text(encoding="utf-8"))
SCRIPTS = [text for _, text in json.loads((HERE / "payloads.json").read_text(encoding="utf-8"))]
PAYLOADS = [text.encode("utf-8", "replace").decode() for text in (*MARKDOWN, *SCRIPTS[::4])]
"""Lone surrogates left out, which no record can hold in a file."""


@dataclass
class Rows:
    """Two sides of one case, whose inputs and outputs are a payload."""

    payload: str
    any_case: bool = False

    def find_run(self, run_id: str) -> Run | None:  # noqa: ARG002 - as a journal is asked
        return None

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:  # noqa: ARG002
        text = self.payload
        fails = variant == f"{text} baseline"
        error = ErrorInfo(kind=text, message=text) if fails else None
        status = Status.ERROR if fails else Status.OK
        output = Output(
            cell_id="c", value=None if fails else text, status=status, error=error, created_at=NOW
        )
        case = Case(id=text, inputs={"q": text, text: {"a": [text]}}, expected=text)
        for case_id in [f"t-{number}" for number in range(12)] if self.any_case else [text]:
            asked = case.model_copy(update={"id": case_id})
            yield Row(variant=str(variant), repeat=0, case=asked, output=output)


def hostile_verdict(text: str, outcome: Outcome = Outcome.FAIL) -> Verdict:
    flips = (Flip(case_id=text, baseline=1.0, candidate=0.0),)
    gate = GateResult(
        metric=text,
        gate=text,
        place=Place(path=text, line=3),
        slice=text,
        outcome=outcome,
        reason=text,
        method=text,
        scale="difference",
        estimate=-0.1,
        n=9,
        regressed=flips,
        improved=flips,
    )
    informs = gate.model_copy(update={"blocks": False, "outcome": Outcome.INCONCLUSIVE, "n_needed": 7})
    candidate = CandidateVerdict(
        candidate=Side(run_id=text, variant=text, definition=text, identity=text),
        baseline=Side(run_id=text, variant=f"{text} baseline", definition=text, identity=text),
        baseline_age_s=1e6,
        outcome=outcome,
        gates=(gate, informs),
    )
    changed = candidate.model_copy(update={"changed": (Place(path=text, line=1, column=2),)})
    return Verdict(
        id=text,
        created_at=NOW,
        experiment=text,
        place=Place(path=text),
        outcome=outcome,
        reason=text,
        blocks=True,
        run_id=text,
        baseline_run_id=text,
        dataset=DatasetVersion(name=text, split=text, version=text, n_cases=9, path=text),
        evaluators=(EvaluatorVersion(name=text, kind=text, identity=text),),
        candidates=(changed, candidate),
        policy={text: text},
        looks=Looks(n_verdicts=2, n_held_out=1),
        replayed=text or "r",
        quarantined=(text,),
        source=Source(commit=text, branch=text, dirty=True),
        link=text,
    )
