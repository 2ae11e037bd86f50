"""How evaluators read values as text, and how they show them: one place, so that all mean the same.

What is shown goes into stores and reports, so it is short, on one line and always valid UTF-8.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import canonical
from llmops.errors import EvaluatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmops.evaluators.base import Subject

_SHOWN_CHARACTERS = 80
_OPENING = "\"'`“”„‘’‚«»‹›*([{¿¡"
_CLOSING = "\"'`“”„‘’‚«»‹›*)]}.,;:!?…。、"
# UAX #15, stream-safe text: nothing real stacks more marks, and ordering a run of them takes quadratic time.
_MARKS_IN_A_ROW = 30
_JOINER = "\N{COMBINING GRAPHEME JOINER}"


def expected_of(subject: Subject) -> Any:
    """Return what the case expects.

    Raises EvaluatorError when it expects nothing.
    """
    if subject.expected is None:
        raise EvaluatorError(f"case {subject.case_id!r} has no expected")
    return subject.expected


def as_text(value: Any) -> str:
    """Return text as it is and any other value as its canonical JSON.

    Raises EvaluatorError for what is no JSON value.
    """
    if isinstance(value, str):
        return value
    try:
        return canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise EvaluatorError(f"a {type(value).__name__} that is no JSON value: {error}") from error


def kind_of(value: Any) -> str:
    """Return the JSON type of a value, in the words of JSON Schema."""
    names = {str: "text", bool: "boolean", int: "number", float: "number", list: "array", type(None): "null"}
    return names.get(type(value), "object")


def shown(value: Any) -> str:
    """Return a value for people: quoted when it is text, cut when it is long, escaped when it is odd."""
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]!r}…"
    plain = storable(as_text(value))
    return plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[:_SHOWN_CHARACTERS]}…"


def storable(text: str) -> str:
    """Return text with lone surrogates written out, so that it can be kept and sent as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def normal_form(text: str) -> str:
    """Return text without what rarely carries meaning in an answer.

    In this order: Unicode NFKC, case folded, NFKC again; whitespace at the ends dropped and runs of it made
    one space; quotes, asterisks, backticks and brackets dropped at both ends, and at the end also
    . , ; : ! ? and their kin. Signs, currency, percent, #, @, _ and a leading point stay, since `-5` is not
    `5`. Text of nothing but such characters keeps them.
    """
    folded = unicodedata.normalize("NFKC", _stream_safe(text)).casefold()
    words = " ".join(unicodedata.normalize("NFKC", folded).split())
    return words.lstrip(_OPENING + " ").rstrip(_CLOSING + " ") or words


def _stream_safe(text: str) -> str:
    return text if text.isascii() else "".join(_with_joiners(text))


def _with_joiners(text: str) -> Iterator[str]:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > _MARKS_IN_A_ROW:
            yield _JOINER
            marks = 1
        yield character
