"""Which error leads to which exit code, and what is told of it."""

from __future__ import annotations

import pytest

from llmops import errors
from llmops.cli.exits import Exit, exit_of
from llmops.errors import Finding, LlmopsError

CODES = [
    (errors.UsageError("x"), 2),
    (errors.DefinitionError(Finding("f", 1, 1, "x")), 2),
    (errors.StepError("x"), 2),
    (errors.EvaluatorError("x"), 2),
    (errors.StoreError("x"), 3),
    (errors.RateLimitError("x"), 3),
    (errors.UnavailableError("x"), 3),
    (errors.AccessError("x"), 4),
    (errors.BudgetError("x"), 4),
    (errors.StoreHeldError("x"), 5),
    (errors.EvidenceError("x"), 1),
    (errors.InconclusiveError("x"), 6),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_code(error: LlmopsError, code: int) -> None:
    assert exit_of(error) == code


def test_codes_are_those_that_are_promised() -> None:
    assert {member.name: int(member) for member in Exit} == {
        "DONE": 0,
        "FAILED": 1,
        "WRONG": 2,
        "INCOMPLETE": 3,
        "STOPPED": 4,
        "HELD": 5,
        "INCONCLUSIVE": 6,
        "HUNG_UP": 129,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def test_no_error_but_missing_evidence_says_that_a_gate_failed_and_none_that_all_is_well() -> None:
    kinds = [LlmopsError]
    for kind in kinds:
        kinds += [each for each in kind.__subclasses__() if each is not errors.EvidenceError]
    found = {exit_of(kind.__new__(kind)) for kind in kinds}
    assert found <= {Exit.WRONG, Exit.INCOMPLETE, Exit.STOPPED, Exit.HELD}
    assert len(found) == 4
