"""Lengths: both ends are allowed, in each unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmops.evaluators import evaluator_class
from llmops.evaluators.base import Judgement


@pytest.mark.parametrize(
    ("output", "options", "value", "said"),
    [
        ("abc", {"at_most": 3}, 1.0, "3 characters"),
        ("abcd", {"at_most": 3}, 0.0, "4 characters"),
        ("abc", {"at_least": 3}, 1.0, "3 characters"),
        ("ab", {"at_least": 3, "at_most": 4}, 0.0, "2 characters"),
        ("é\N{GRINNING FACE}", {"at_most": 2}, 1.0, "2 characters"),
        (" two  words\n", {"at_most": 2, "unit": "words"}, 1.0, "2 words"),
        ("one two three", {"at_most": 2, "unit": "words"}, 0.0, "3 words"),
        ("a b c d", {"at_most": 6, "unit": "tokens"}, 1.0, "6 tokens"),
        ("", {"at_least": 1}, 0.0, "0 characters"),
        ({"a": 1}, {"at_most": 7}, 1.0, "7 characters"),
    ],
)
def test_both_ends_are_allowed(
    judge: Callable[..., Judgement], output: Any, options: dict[str, Any], value: float, said: str
) -> None:
    found = judge("length", output, **options)
    assert (found.value, found.rationale) == (value, said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "say at_least, at_most"),
        ({"at_least": 3, "at_most": 2}, "nothing fits"),
        ({"at_most": -1}, "greater than"),
    ],
)
def test_options_that_ask_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evaluator_class("length").Options.model_validate(options)
