"""How evaluators read values as text, and how they show them: one place, so that all mean the same.

What is shown goes into stores and reports, so it is short, on one line and always valid UTF-8.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import canonical
from llmops.errors import EvaluatorError
from llmops.records import Status

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


def output_text(subject: Subject) -> str:
    """Return the output, which must be text; of an output that crashed the empty one.

    Raises EvaluatorError when it is anything else: how close a number or an object is to a text nobody can say.
    """
    if subject.status is Status.CRASHED:
        return ""
    if not isinstance(subject.output, str):
        raise EvaluatorError(f"case {subject.case_id!r}: the output is {_a_kind(subject.output)}, no text")
    return subject.output


def accepted_texts(subject: Subject) -> tuple[str, ...]:
    """Return what the case expects as texts: one, or a list of any of which is right, perhaps of none.

    Raises EvaluatorError when it expects nothing, or something else.
    """
    expected = expected_of(subject)
    if isinstance(expected, str):
        return (expected,)
    if not isinstance(expected, (list, tuple)) or not all(isinstance(text, str) for text in expected):
        said = f"a text or a list of texts, not {_a_kind(expected)}"
        raise EvaluatorError(f"case {subject.case_id!r}: expected must be {said} {shown(expected)}")
    return tuple(expected)


def reference_texts(subject: Subject) -> tuple[str, ...]:
    """Return the texts to compare an output with, at least one and none of them blank.

    Raises EvaluatorError as `accepted_texts` does, and for a list without texts or a blank one.
    """
    references = accepted_texts(subject)
    if not references or not all(text.strip() for text in references):
        raise EvaluatorError(
            f"case {subject.case_id!r}: a reference is empty: there is nothing to compare with"
        )
    return references


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


def _a_kind(value: Any) -> str:
    kind = kind_of(value)
    return kind if kind in ("null", "text") else f"{'an' if kind[0] in 'ao' else 'a'} {kind}"


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
