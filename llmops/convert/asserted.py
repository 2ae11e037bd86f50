"""What other tools assert of one output, for projects that came from them: their `chains/NAME_checks.py` call this.

Only what needs neither a model nor anybody's code; patterns run on RE2, in linear time.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmops.definitions.json_schema import problem_with
from llmops.definitions.patterns import compile_pattern, encodable
from llmops.evaluators.exact import is_same
from llmops.evaluators.json_checks import parse_json
from llmops.evaluators.texts import as_text

MOST_EDITS = 5
"""Edits that `levenshtein` allows where nobody says how many."""
_LONGEST = 2_000
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def judge_case(output: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether an output passes what its case asserts, as a score with its reason; `share` is a part.

    All must hold, or with a `threshold` the weighted share of those that do must reach it.
    """
    asserted: Sequence[Mapping[str, Any]] = metadata.get("asserts") or ()
    held = [(each, holds(each, output)) for each in asserted]
    total = sum(_weight(each) for each in asserted)
    share = sum(_weight(each) for each, passed in held if passed) / total if total else 1.0
    threshold = metadata.get("threshold")
    failed = [str(each["type"]) for each, passed in held if not passed and _weight(each)]
    passed = share >= threshold if threshold is not None else not failed
    said = (
        f"failed: {', '.join(failed)}"
        if failed
        else "all hold"
        if held
        else "nothing is asserted of this case"
    )
    return {"score": float(passed), "share": share, "rationale": said}


def _weight(asserted: Mapping[str, Any]) -> float:
    return float(asserted.get("weight", 1))


def holds(asserted: Mapping[str, Any], output: Any) -> bool:
    """Say whether one assertion holds of an output: `type`, with `not-` before it or without, `value`, `threshold`.

    Raises ValueError for a type that is not known here.
    """
    kind = str(asserted["type"])
    is_inverse = kind.startswith("not-")
    test = TESTS.get(kind.removeprefix("not-"))
    if test is None:
        raise ValueError(f"no assertion is called {kind!r}; known: {', '.join(TESTS)}")
    return test(output, asserted.get("value"), asserted.get("threshold")) is not is_inverse


def _equals(output: Any, value: Any, _: Any) -> bool:
    if isinstance(value, str | None):
        return as_text(output) == (value or "")
    try:
        return is_same(parse_json(output) if isinstance(output, str) else output, value)
    except ValueError:
        return False


def _texts(value: Any) -> list[str]:
    """Return the texts that a value lists, as a list or between commas."""
    items = value if isinstance(value, list) else str(value).split(",")
    return [str(item).strip() for item in items]


def _contains(output: Any, value: Any, _: Any) -> bool:
    return str(value) in as_text(output)


def _icontains(output: Any, value: Any, _: Any) -> bool:
    return str(value).lower() in as_text(output).lower()


def _over(
    test: Callable[[Any, Any, Any], bool], each: Callable[[Iterator[bool]], bool]
) -> Callable[..., bool]:
    return lambda output, value, _: each(test(output, text, None) for text in _texts(value))


def _starts_with(output: Any, value: Any, _: Any) -> bool:
    return as_text(output).startswith(str(value))


def _istarts_with(output: Any, value: Any, _: Any) -> bool:
    return as_text(output).strip().lower().startswith(str(value).lower())


def _iends_with(output: Any, value: Any, _: Any) -> bool:
    return as_text(output).strip().lower().endswith(str(value).lower())


def _regex(output: Any, value: Any, _: Any) -> bool:
    return compile_pattern(str(value)).search(encodable(as_text(output))) is not None


def _is_json(output: Any, value: Any, _: Any) -> bool:
    try:
        found = parse_json(output) if isinstance(output, str) else output
    except ValueError:
        return False
    return not isinstance(value, dict) or problem_with(found, value) is None


def _contains_json(output: Any, value: Any, _: Any) -> bool:
    text = as_text(output)
    decode = json.JSONDecoder().raw_decode
    for start in [found.start() for found in re.finditer(r"[{\[]", text)][:_LONGEST]:
        try:
            found, _end = decode(text, start)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict) or problem_with(found, value) is None:
            return True
    return False


def _levenshtein(output: Any, value: Any, threshold: Any) -> bool:
    return n_edits(as_text(output)[:_LONGEST], str(value)[:_LONGEST]) <= (
        MOST_EDITS if threshold is None else threshold
    )


def n_edits(first: str, second: str) -> int:
    """Return the insertions, deletions and substitutions of characters between two texts."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            above, row[j] = row[j], min(above + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def _word_count(output: Any, value: Any, _: Any) -> bool:
    n = len(as_text(output).split())
    limits = value if isinstance(value, dict) else {"min": value, "max": value}
    return float(limits.get("min") or 0) <= n <= float(limits.get("max") or n)


# --- OpenAI Evals -----------------------------------------------------------------------------------------------


def _answers(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _match(output: Any, value: Any, _: Any) -> bool:
    return as_text(output).strip().startswith(tuple(_answers(value)))


def _includes(output: Any, value: Any, _: Any) -> bool:
    return any(answer in as_text(output) for answer in _answers(value))


def _iincludes(output: Any, value: Any, _: Any) -> bool:
    return any(answer.lower() in as_text(output).lower() for answer in _answers(value))


def _fuzzy_match(output: Any, value: Any, _: Any) -> bool:
    said = _plain(as_text(output))
    return any(_within(said, _plain(answer)) for answer in _answers(value))


def _within(first: str, second: str) -> bool:
    if not first or not second:
        return first == second
    return first in second or second in first


def _plain(text: str) -> str:
    without = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", without).split())


TESTS: Mapping[str, Callable[[Any, Any, Any], bool]] = {
    "equals": _equals,
    "contains": _contains,
    "icontains": _icontains,
    "contains-all": _over(_contains, all),
    "contains-any": _over(_contains, any),
    "icontains-all": _over(_icontains, all),
    "icontains-any": _over(_icontains, any),
    "starts-with": _starts_with,
    "istarts-with": _istarts_with,
    "iends-with": _iends_with,
    "regex": _regex,
    "is-json": _is_json,
    "contains-json": _contains_json,
    "levenshtein": _levenshtein,
    "word-count": _word_count,
    "match": _match,
    "includes": _includes,
    "iincludes": _iincludes,
    "fuzzy-match": _fuzzy_match,
}
