"""Patterns run in linear time whatever they are; what RE2 has not is refused in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.definitions.patterns import compile_pattern, encodable
from llmops.errors import EvaluatorError
from llmops.evaluators import open_evaluator

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmops.evaluators.base import Judgement

    Judge = Callable[..., Judgement]

# A backtracking engine takes exponential or high polynomial time on a long run of `a` that fails at its end.
HOSTILE = [
    r"^(a+)+$",
    r"^(a*)*$",
    r"^(a|a)*$",
    r"^(a|aa)+$",
    r"^(a|a?)+$",
    r"^(.*a){12}$",
    r"^(.*)*$b",
    r"^((a+)+)+$",
    r"^(a+){10}$",
    r"^(\w+\s?)*$",
    r"^(\w*)*$",
    r"^([a-z]+)*$",
    r"^([a-zA-Z]+)*\d$",
    r"^(a+)*b(a+)*$",
    r"^(?:a+a+)+$",
    r"^(?:a?){50}a{50}$",
    r"(x+x+)+y",
    r"(.*)(.*)(.*)(.*)(.*)=$",
    r"(a|b|ab)*c",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"^([a-z0-9])(([\-.]|[_]+)?([a-z0-9]+))*(@)([a-z0-9])+$",
    r"^(\d+|a+|\w+)+:$",
    r"(a+)+\z",
    r"(?i)^(A+)+$",
    r"(?s)^(.+)+\n$",
    r"^(a{1,10}){1,10}$",
    r"a*a*a*a*a*a*a*a*a*a*b",
    r"\s*,?\s*a*?a*?a*?b",
    r"^(?:(?:a+)?)+$",
    r"^(?P<word>a+)+(?P<rest>\w+)*;$",
]


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_pattern_ends_on_a_long_text(judge: Judge, pattern: str) -> None:
    assert judge("regex", "a" * 50_000 + "!", pattern=pattern).value == 0


def test_there_are_thirty_hostile_patterns() -> None:
    assert len(set(HOSTILE)) == 30


@pytest.mark.parametrize(
    ("output", "options", "value", "rationale"),
    [
        ("order 4711.", {"pattern": r"\d+"}, 1, "found '4711'"),
        ("order", {"pattern": r"\d+"}, 0, r"'\\d+' does not match"),
        ("4711", {"pattern": r"\d+", "mode": "fullmatch"}, 1, "found '4711'"),
        ("4711.", {"pattern": r"\d+", "mode": "fullmatch"}, 0, r"'\\d+' does not match"),
        ("Hello", {"pattern": "hello"}, 0, "'hello' does not match"),
        ("Hello", {"pattern": "hello", "ignore_case": True}, 1, "found 'Hello'"),
        ("Hello", {"pattern": "(?i)hello"}, 1, "found 'Hello'"),
        ("a\nb", {"pattern": "(?m)^b$"}, 1, "found 'b'"),
        ("größe", {"pattern": r"\pL{5}"}, 1, "found 'größe'"),
        ({"a": 1}, {"pattern": '^{"a":1}$'}, 1, "found '{\"a\":1}'"),
        ("", {"pattern": ""}, 1, "found ''"),
    ],
)
def test_regex_says_what_it_found(
    judge: Judge, output: Any, options: dict[str, Any], value: int, rationale: str
) -> None:
    found = judge("regex", output, **options)
    assert (found.value, found.rationale) == (value, rationale)


def test_without_a_pattern_expected_is_the_pattern(judge: Judge) -> None:
    with_its_own: Any = open_evaluator("regex", {"pattern": "a"})
    without: Any = open_evaluator("regex", {})
    assert (with_its_own.needs_expected, without.needs_expected) == (False, True)
    assert judge("regex", "abc", "^a.c$").value == 1
    with pytest.raises(EvaluatorError, match=r"case 'case-1': pattern '\(' is wrong: missing \)"):
        judge("regex", "abc", "(")
    with pytest.raises(EvaluatorError, match="expected must be a pattern"):
        judge("regex", "abc", 3)


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        (r"(?=a)b", "look-ahead"),
        (r"(?!a)b", "look-ahead"),
        (r"(?<=a)b", "look-behind"),
        (r"(?<!a)b", "look-behind"),
        (r"(a)\1", "backreferences"),
        (r"(?P<x>a)(?P=x)", "backreferences"),
        (r"(?>a+)b", "atomic groups"),
        (r"(a)?(?(1)b|c)", "conditional groups"),
    ],
)
def test_what_re2_has_not_is_refused_by_name(pattern: str, named: str) -> None:
    with pytest.raises(ValidationError, match=rf"uses {named}; patterns run in linear time") as caught:
        open_evaluator("regex", {"pattern": pattern})
    assert caught.value.errors()[0]["loc"] == ("pattern",)


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "a**", "a{3000}", r"\p{Klingon}", "\\", "(?P<>a)", "(?="])
def test_a_wrong_pattern_is_refused_without_noise(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        open_evaluator("regex", {"pattern": pattern})
    assert capfd.readouterr() == ("", "")


def test_a_pattern_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValidationError):
        open_evaluator("regex", {"pattern": "\ud800"})


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.text(st.characters(), max_size=20))
def test_an_escaped_text_is_found_exactly_where_it_stands(text: str, around: str) -> None:
    escaped = "".join(f"\\x{{{ord(character):x}}}" for character in text)
    found = compile_pattern(escaped).search(encodable(around + text))
    assert found.group() == text
    assert found.start() == encodable(around + text).index(text)


@settings(deadline=None)
@given(st.text("ab", max_size=12), st.sampled_from([r"a+b", r"^(a|b)*a$", r"(ab)+", r"b{2,3}", r"[^a]$"]))
def test_re2_agrees_with_python_where_both_can(text: str, pattern: str) -> None:
    assert (compile_pattern(pattern).search(text) is None) == (re.search(pattern, text) is None)


def test_lone_surrogates_become_one_replacement_character_each() -> None:
    assert encodable("a\ud800b\udc00") == "a\ufffdb\ufffd"
    assert encodable("😀é") == "😀é"
