"""How well a search did: which of the passages that answer a question it found, and how far up they stood.

Recall, precision, hits, reciprocal rank and nDCG with relevant or not (Järvelin and Kekäläinen 2002); how passages
are found is left to indexes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from llmops.definitions.base import Definition, Int
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import expected_of, shown

_KEYS = ("id", "source", "quote")
_FIGURES = ("recall", "precision", "hit", "ndcg")


def _as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


def _each_once(depths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(depths))


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that was found; one that is given as a text is known by it."""

    id: str | None
    source: str | None
    text: str


class Retrieval:
    """The share of what is relevant that is among the passages found: recall, 0 to 1.

    The output is a list of passages, best first, or what a `retrieve` step gives; a passage is a text or has `id`,
    `source` and `text`. `expected` is a list of what is to be found: an id or a source, or an object with `id`,
    `source` or `quote`, all of which hold of the passage; a list in that list holds alternatives, any of which will
    do. Quotes are looked for in the passage's text, line breaks as spaces, so that they outlive another chunker.

    Where `expected` is an empty list there is nothing to find, and so no score: recall of nothing is not 1.
    """

    class Options(Definition):
        """k: how many passages the figures `at_K` are over, one number or several."""

        k: Annotated[
            tuple[Annotated[Int, Field(ge=1)], ...],
            BeforeValidator(_as_list),
            Field(min_length=1),
            AfterValidator(_each_once),
        ] = (4,)

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True
    parts_share_range = True

    def __init__(self, options: Options) -> None:
        self.options = options

    @staticmethod
    def parts(options: Options) -> tuple[str, ...]:
        """Return the parts of its scores."""
        cut = (f"{figure}_at_{k}" for k in options.k for figure in _FIGURES)
        return ("mrr", "ndcg", *cut)

    async def judge(self, subject: Subject) -> Judgement:
        """Return the recall over all passages found, and the other figures as parts.

        Raises EvaluatorError when the output is no list of passages, or `expected` no list of what to find.
        """
        wanted = [list(_alternatives(subject, need)) for need in _listed(expected_of(subject))]
        if not wanted:
            return Judgement(None, "no passage is relevant, so there is nothing to find")
        passages = [_passage(subject, found) for found in _found(subject.output)]
        met = [
            frozenset(place for place, need in enumerate(wanted) if any(_is(passage, one) for one in need))
            for passage in passages
        ]
        whole = _figures(met, len(wanted))
        mrr = next((1 / rank for rank, needs in enumerate(met, 1) if needs), 0.0)
        parts = {"mrr": mrr, "ndcg": whole["ndcg"]}
        for k in self.options.k:
            parts |= {f"{name}_at_{k}": value for name, value in _figures(met, len(wanted), k).items()}
        return Judgement(whole["recall"], _missing(wanted, met), parts=parts)


def _figures(met: Sequence[frozenset[int]], n_wanted: int, k: int | None = None) -> dict[str, float]:
    """Return the figures over the first k passages, all of them without k.

    met: by passage, in their order, which needs it meets. A passage adds to nDCG when it meets a need that none
    before it met; the best order has such passages first, and one for each need that was never met.
    Precision is over k also where fewer were found, as in TREC.
    """
    seen: set[int] = set()
    gain, n_gains = 0.0, 0
    for rank, needs in enumerate(met[:k], 1):
        if needs - seen:
            gain += _discount(rank)
            n_gains += 1
        seen |= needs
    n_best = n_gains + n_wanted - len(seen)
    best = sum(_discount(rank) for rank in range(1, 1 + min(n_best, k or n_best)))
    n_relevant = sum(1 for needs in met[:k] if needs)
    return {
        "recall": len(seen) / n_wanted,
        "precision": n_relevant / (k or len(met) or 1),
        "hit": float(bool(seen)),
        "ndcg": min(gain / best, 1.0),
    }


def _discount(rank: int) -> float:
    return 1 / math.log2(rank + 1)


def _missing(wanted: Sequence[Sequence[Mapping[str, str]]], met: Sequence[frozenset[int]]) -> str | None:
    missed = [place for place in range(len(wanted)) if not any(place in needs for needs in met)]
    if not missed:
        return None
    first = wanted[missed[0]][0]
    said = ", ".join(f"{key} {shown(text)}" for key, text in first.items())
    return f"{len(missed)} of {len(wanted)} not among {len(met)} passages: {said}"


# --- what was found, and what was to be found ---------------------------------------------------------------


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _found(output: Any) -> Sequence[Any]:
    return _listed(output["passages"] if isinstance(output, Mapping) and "passages" in output else output)


def _passage(subject: Subject, found: Any) -> Passage:
    if isinstance(found, str):
        return Passage(found, None, _plain(found))
    if not isinstance(found, Mapping) or not {"id", "source", "text"} & found.keys():
        said = f"a passage is a text, or has id, source or text: not {shown(found)}"
        raise EvaluatorError(f"case {subject.case_id!r}: {said}")
    texts = {key: found.get(key) for key in ("id", "source", "text")}
    known = {key: text for key, text in texts.items() if isinstance(text, str)}
    return Passage(known.get("id"), known.get("source"), _plain(known.get("text", "")))


def _alternatives(subject: Subject, need: Any) -> Iterator[Mapping[str, str]]:
    """Yield what a need is met by; a text as the id or the source that it may be."""
    options = _listed(need)
    for one in options:
        if isinstance(one, str) and one.strip():
            yield {"id": one}
            yield {"source": one}
        elif isinstance(one, Mapping) and one and all(_is_said(*item) for item in one.items()):
            yield {key: _plain(text) if key == "quote" else text for key, text in one.items()}
        else:
            said = f"what is to be found is a text, or has {', '.join(_KEYS)}: not {shown(one)}"
            raise EvaluatorError(f"case {subject.case_id!r}: {said}")
    if not options:
        raise EvaluatorError(f"case {subject.case_id!r}: an empty list of alternatives can never be met")


def _is_said(key: Any, text: Any) -> bool:
    return key in _KEYS and isinstance(text, str) and bool(text.strip())


def _is(passage: Passage, wanted: Mapping[str, str]) -> bool:
    """Say whether all that is wanted holds of a passage."""
    found = {"id": passage.id, "source": passage.source}
    return all(text in passage.text if key == "quote" else text == found[key] for key, text in wanted.items())


def _plain(text: str) -> str:
    return " ".join(text.split())
