"""Patterns that others wrote, matched in linear time whatever the pattern and the text are.

The one file that meets RE2, which has neither look-around nor backreferences and so never runs away.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator

_QUOTED = 80
_LINEAR = "patterns run in linear time (RE2), which has none"
_UNSUPPORTED = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?>": "atomic groups",
    "(?P=": "backreferences",
    "(?(": "conditional groups",
    **{f"\\{digit}": "backreferences" for digit in range(1, 10)},
}


@lru_cache(maxsize=128)
def compile_pattern(pattern: str, *, ignore_case: bool = False) -> Any:
    """Return the compiled pattern; the last 128 are kept, so asking again is cheap.

    Raises ValueError, in words for people, for a pattern that is wrong or that RE2 does not support.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(_reason(pattern, said.decode() if isinstance(said, bytes) else said)) from error
    except UnicodeEncodeError as error:
        raise ValueError(f"pattern {_quoted(pattern)} is no valid Unicode text") from error


def _checked(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


Pattern = Annotated[str, AfterValidator(_checked)]
"""A pattern in a definition, which is known to compile."""


def encodable(text: str) -> str:
    """Return text with each lone surrogate replaced by U+FFFD, since RE2 reads UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _reason(pattern: str, said: str) -> str:
    """Return why a pattern was refused: RE2 quotes the operator, cut short where it stopped reading."""
    named = next((name for sign, name in _UNSUPPORTED.items() if sign in pattern), None)
    if named and ("perl operator" in said or "escape sequence" in said):
        return f"pattern {_quoted(pattern)} uses {named}; {_LINEAR}"
    return f"pattern {_quoted(pattern)} is wrong: {said[:_QUOTED]}"


def _quoted(pattern: str) -> str:
    return repr(pattern) if len(pattern) <= _QUOTED else f"{pattern[:_QUOTED]!r}…"
