"""Says whether an answer about the documentation is right; retrieval and wording have evaluators of their own.

The `python` evaluator of docs_qa.experiment.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ABSTAINED = "not in the documentation"
Fact = str | Sequence[str]


def is_right(*, output: str, metadata: dict[str, list[Fact]]) -> dict[str, float | str]:
    """Return 1 for an answer that has all facts of the case, and for one that abstains where there are none."""
    said, facts = plain(output), metadata["facts"]
    missing = [fact for fact in facts if not any(is_in(option, said) for option in options_of(fact))]
    if not facts:
        abstained = ABSTAINED in said
        return {"score": float(abstained), "rationale": "abstained" if abstained else "made an answer up"}
    return {
        "score": float(not missing),
        "rationale": f"without {missing[0]!r}" if missing else "has all facts",
    }


def options_of(fact: Fact) -> Sequence[str]:
    """Return the ways in which a fact may be said."""
    return [fact] if isinstance(fact, str) else fact


def is_in(fact: str, said: str) -> bool:
    """Say whether a text holds a fact, as whole words: 5 is not in 15."""
    return re.search(rf"(?<![\w.]){re.escape(plain(fact))}(?!\w)", said) is not None


def plain(text: str) -> str:
    """Return text without case, line breaks and the marks of Markdown."""
    return " ".join(re.sub(r"[`*]", "", text).casefold().split())
