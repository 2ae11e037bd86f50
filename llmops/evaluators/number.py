"""Whether the number in an output is the expected one: 1,234.50 in a sentence is 1234.5.

Numbers are read and compared as exact fractions, so that 0.31 lies within 0.01 of 0.3.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llmops.definitions.base import Definition
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import kind_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

# Longer than any finite double written out, short enough for Python to read without a second thought.
_LONGEST = 400
_MARK = r"[,'’_\u00a0\u2009\u202f]"
_GROUPED = re.compile(rf"(?!0)\d{{1,3}}(?P<mark>{_MARK})\d{{3}}(?:(?P=mark)\d{{3}})*(?:\.\d+)?")
_NUMBER = re.compile(
    rf"""(?<![^\W_])                                     # not the 4 of GPT4
    (?P<sign>[-+−]?) (?:[$€£¥₹₩₽₺₪₫฿¢]\s?)? (?P<late_sign>[-+−]?)
    (?P<digits> \d+ (?:{_MARK}\d+)* (?:\.\d+)? | (?<!\.)\.\d+)
    (?: [eE](?P<power>[-+−]?\d+) | \s?(?:[×xX*]|\\times|\\cdot)\s?10\^\{{?(?P<raised>[-+−]?\d+) )?
    (?: /(?P<over>\d+)(?!/?\d|[.,]\d) )?""",
    re.VERBOSE,
)
_ASCII_MINUS = str.maketrans({"−": "-"})


@dataclass(frozen=True, slots=True)
class Found:
    """A number as it was written, without marks: digits with sign and point, power of ten, divisor."""

    digits: str
    power: str = "0"
    over: str = "1"

    @property
    def text(self) -> str:
        """The number for people."""
        power = "" if self.power == "0" else f"e{self.power}"
        over = "" if self.over == "1" else f"/{self.over}"
        written = f"{self.digits}{power}{over}"
        return written if self._is_readable() else f"{shown(written)} (out of range)"

    @property
    def value(self) -> Fraction | None:
        """The exact number, None when it is too large, too small or too long to be one."""
        if not self._is_readable():
            return None
        return Fraction(self.digits) * Fraction(10) ** int(self.power) / int(self.over)

    def _is_readable(self) -> bool:
        is_short = max(len(self.digits), len(self.over)) <= _LONGEST and len(self.power) <= 5
        return is_short and abs(int(self.power)) <= _LONGEST


class Number:
    """1 when output and expected are the same number within a tolerance, 0 otherwise.

    A text is read as English writes numbers: 1,234.5 with , ' _ or a narrow space between thousands; a sign,
    also before or after a currency sign; 1.5e3 and 1.5 × 10^3; 3/4 as the fraction. Percent, currency and
    units are passed over, never converted: 45% is 45 and 10k is 10. Digits that go on a word (GPT4) are none.
    Without a number an output is null: it matches a case that expects null, and no other.
    """

    class Options(Definition):
        """take: which number of a text counts; `only` accepts a single one. tolerance: absolute.

        relative: as a share of the expected number. The larger of both tolerances counts.
        """

        take: Literal["first", "last", "only"] = "last"
        tolerance: float = Field(default=0.0, ge=0)
        relative: float = Field(default=0.0, ge=0)

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = False

    def __init__(self, options: Options) -> None:
        self.options = options
        self._tolerance = Fraction(str(options.tolerance))
        self._relative = Fraction(str(options.relative))

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0, and both numbers when they differ.

        Raises EvaluatorError when `expected` is neither null nor one number.
        """
        expected, numbers = _expected(subject), numbers_in(subject.output)
        if self.options.take == "only" and len(numbers) > 1:
            return Judgement(0.0, f"{len(numbers)} numbers in {shown(subject.output)}, not one")
        found = None if not numbers else numbers[0 if self.options.take == "first" else -1]
        if found is None or expected is None:
            said = [number.text if number else "no number" for number in (found, expected)]
            return Judgement(float(found is expected), f"{said[0]}, expected {said[1]}")
        is_near = self._is_near(found.value, expected.value)
        return Judgement(float(is_near), f"{found.text}, expected {expected.text}")

    def _is_near(self, found: Fraction | None, expected: Fraction | None) -> bool:
        if found is None or expected is None:
            return False
        return abs(found - expected) <= max(self._tolerance, self._relative * abs(expected))


def numbers_in(value: Any) -> list[Found]:
    """Return the numbers of a value, in order: all of a text, a number itself, none of anything else."""
    if isinstance(value, str):
        return [found for match in _NUMBER.finditer(value) for found in _read(match)]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return []
    return [Found(_written(value))] if isinstance(value, int) or math.isfinite(value) else []


def _expected(subject: Subject) -> Found | None:
    if subject.expected is None:
        return None
    found = numbers_in(subject.expected)
    if len(found) != 1 or found[0].value is None:
        said = f"{kind_of(subject.expected)} {shown(subject.expected)}"
        raise EvaluatorError(f"case {subject.case_id!r}: expected must be one number or null, not {said}")
    return found[0]


def _read(match: re.Match[str]) -> Iterator[Found]:
    """Yield what one match holds: one number, or several that only a comma or a slash keeps apart."""
    digits, over = match["digits"], match["over"]
    sign = "-" if (match["sign"] or match["late_sign"]) in ("-", "−") else ""
    first, last = _ungrouped(digits)
    if first:
        yield Found(sign + first[0])
        yield from map(Found, first[1:])
        sign = ""
    power = (match["power"] or match["raised"] or "0").translate(_ASCII_MINUS)
    is_fraction = over and int(over[:_LONGEST]) and match.string[match.start() - 1 : match.start()] != "/"
    yield Found(sign + last, power, over if is_fraction else "1")
    if over and not is_fraction:
        yield Found(over)


def _ungrouped(digits: str) -> tuple[list[str], str]:
    """Return the numbers before the last, and the last: one number where marks part its thousands."""
    pieces = re.split(r"[^\d.]", digits)
    return ([], "".join(pieces)) if _GROUPED.fullmatch(digits) else (pieces[:-1], pieces[-1])


def _written(number: float) -> str:
    try:
        return str(number)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "9" * (_LONGEST + 1)
