"""How numbers look wherever we print them, and how text that others wrote is made harmless first.

Model outputs, cases and names may hold anything: escape sequences that drive a terminal, marks that turn the
reading direction, commands to a CI runner. None of it is printed but through `printable` or `one_line`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from llmops.definitions.images import without_images
from llmops.records import Comparison, Effect, Interval

UNKNOWN = "unknown"
_LONGEST = 2_000
"""Characters of a text that are looked at for an excerpt: ten times what any line can show."""

_SEQUENCES = re.compile(
    "(?:\x1b\\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\\\|\x9c)"  # OSC: titles, links, the clipboard
    "|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x90\x98\x9c\x9e\x9f]*(?:\x1b\\\\|\x9c)"  # DCS, SOS, PM, APC
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    "|\x1b[ -/]*[0-~]?"
)
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of reading direction
    "\U000e0000-\U000e007f]"  # tags, which show as nothing
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# GitHub's runner obeys `::` at the start of a line, after spaces too, and `##[` anywhere in it.
_COMMAND = re.compile(r"##(?=\[)|^[^\S\n]*:(?=:)", re.MULTILINE)


def printable(text: str) -> str:
    """Return text as a terminal or a CI log may have it; line breaks and tabs stay.

    Whole escape sequences go, then every control character and mark of direction; what is no character becomes
    U+FFFD, and what a CI runner would take for a command is broken by a space.
    """
    text = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return without_commands(_SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text)))


def without_commands(text: str) -> str:
    """Return text in whose lines a CI runner finds no command; for text whose lines were broken since."""
    return _COMMAND.sub(lambda found: f"{found[0]} ", text)


def one_line(text: str) -> str:
    """Return the beginning of a text as one printable line."""
    return printable(" ".join(text[:_LONGEST].split()))


def visible(text: str) -> str:
    """Return text for a page that is read, with a sign for each character that hides or drives something.

    Line breaks and tabs stay; other control characters show as their pictures, marks of direction, what has no
    width and what is no character as `‹U+202E›`.
    """
    return _UNSEEN.sub(_sign, text.replace("\r\n", "\n"))


_UNSEEN = re.compile(
    f"{_INVISIBLE.pattern}|{_SURROGATE.pattern}|[\xad\u200b\u2028\u2029\u2060-\u2064\ufeff\ufff9-\ufffb\ufffe\uffff]"
)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"‹U+{code:04X}›"


def value_text(value: Any) -> str:
    """Return an input, an expected value or an output as one printable line: text as it is, else JSON."""
    shown = without_images(value)
    return one_line(shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, default=str))


def side_names(comparison: Comparison) -> tuple[str, str]:
    """Return how baseline and candidate are called: by their variants, with their runs where these are alike."""
    sides = comparison.baseline, comparison.candidate
    names = [one_line(side.variant) for side in sides]
    if names[0] == names[1]:
        names = [f"{one_line(side.run_id)}:{name}" for side, name in zip(sides, names, strict=True)]
    return names[0], names[1]


def from_difference(before: str, after: str) -> tuple[str, str]:
    """Return two texts from shortly before they differ, so that an excerpt of each shows where."""
    pairs = enumerate(zip(before, after, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(len(before), len(after)))
    start = before.rfind(" ", 0, max(0, same - _CONTEXT)) + 1
    if before == after or start < _CONTEXT:
        return before, after
    return f"...{before[start:]}", f"...{after[start:]}"


_CONTEXT = 24


def ascii_text(text: str) -> str:
    """Return text in ASCII, other characters as escapes."""
    return text.encode("ascii", "backslashreplace").decode()


def count(n: int, noun: str) -> str:
    """Return "1 case" or "1,234 cases"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


# --- numbers ------------------------------------------------------------------------------------------------


def quantity(metric: str, value: float | None) -> str:
    """Return the value of a metric in its unit; absent is "unknown", never 0."""
    if value is None:
        return UNKNOWN
    name = metric.partition(".")[0]
    if name in {"latency_s", "ttft_s"}:
        return seconds(value)
    if name in {"input_tokens", "output_tokens"}:
        return tokens(value)
    return usd(value) if name == "cost_usd" else score(value)


def score(value: float) -> str:
    """Return a score or share with three decimals."""
    return f"{value:z,.3f}"


def seconds(value: float) -> str:
    """Return a time in seconds, with three decimals."""
    return "<0.001 s" if 0 < value < 0.0005 else f"{value:,.3f} s"


def tokens(value: float) -> str:
    """Return a number of tokens, whole but for means."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def usd(value: float | None) -> str:
    """Return an amount of money with four decimals."""
    if value is None:
        return UNKNOWN
    return "<0.0001" if 0 < value < 0.00005 else f"{value:z,.4f}"


def interval(found: Interval | None, *, near: float = 0.0) -> str:
    """Return the ends of an interval with two decimals, more where an end would wrongly look like `near`."""
    if found is None:
        return ""
    digits = _digits((found.low, found.high), (near,))
    return f"[{found.low:z,.{digits}f}, {found.high:z,.{digits}f}]"


def effect_value(effect: Effect, *near: float) -> str:
    """Return an effect: a difference with its sign, a ratio as x1.04; it never wrongly looks like any `near`."""
    if effect.estimate is None:
        return UNKNOWN
    digits = _digits(_ends(effect), (neutral(effect), *near))
    if effect.scale == "ratio":
        return f"x{effect.estimate:z,.{digits}f}"
    return f"{effect.estimate:+z,.{max(digits, _FACT_DIGITS.get(effect.metric, 0))}f}"


_FACT_DIGITS = {"error_rate": 3, "cost_usd": 4}
"""Facts are exact: their difference has the decimals of their values."""


def effect_interval(effect: Effect, *near: float) -> str:
    """Return the interval of an effect, with as many decimals as the effect has."""
    if effect.interval is None:
        return ""
    digits = _digits(_ends(effect), (neutral(effect), *near))
    return f"[{effect.interval.low:z,.{digits}f}, {effect.interval.high:z,.{digits}f}]"


def neutral(effect: Effect) -> float:
    """Return the effect of no change: 0 as a difference, 1 as a ratio."""
    return 1.0 if effect.scale == "ratio" else 0.0


def _ends(effect: Effect) -> tuple[float, ...]:
    ends = () if effect.interval is None else (effect.interval.low, effect.interval.high)
    return ends if effect.estimate is None else (effect.estimate, *ends)


def _digits(values: tuple[float, ...], near: tuple[float, ...]) -> int:
    """Return two, or up to four where rounding would make a value look like one of `near` that is not."""
    apart = [abs(value - other) for value in values for other in near]
    for digits in (2, 3):
        if all(gap < _SAME or round(gap, digits) for gap in apart):
            return digits
    return 4


_SAME = 0.00005
