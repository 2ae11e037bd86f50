"""What `embedded` does with tools: it chooses by patterns and likeness, each tool once, and answers from what they say.

No language model: it knows an arithmetic expression when it sees one, puts the question where a tool wants text, and
takes what came back as it is. Enough to carry a small agent offline, and a floor for those who think.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmops.models import objects, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmops.models.objects import Source
    from llmops.records import Message, Request, Tool

NOTHING_SAID = "The tools gave nothing to answer from."

_N = r"(?:\d{1,3}(?:,\d{3})+|\d{1,15})(?:\.\d{1,9})?"
_OPERATORS = {
    "plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/", "to the power of": "**",
}  # fmt: skip
_SIGNS = {"×": "*", "÷": "/", "^": "**", "−": "-", ",": ""}
_SPOKEN = "|".join(word.replace(" ", r"\s") for word in _OPERATORS)
_OPERATOR = rf"(?:\s{{0,3}}(?:\*\*|//|[-+*/%×÷^])\s{{0,3}}|\s{{1,3}}(?:x|{_SPOKEN})\s{{1,3}})"
_WHOLE = re.compile(
    rf"(?<![\w.])\({{0,9}}[-−]?{_N}\){{0,9}}(?:{_OPERATOR}\({{0,9}}[-−]?{_N}\){{0,9}})+(?!\w)", re.IGNORECASE
)
_RANGE = re.compile(r"\d+(?:[-/]\d+)+")  # a date, a range of pages, a fraction of a name: no sum
_SHARE = re.compile(rf"(?<![\w.])({_N})\s?(?:%|per\s?cent)\s+of\b(?:\s({_N})(?!\w|\.\d))?", re.IGNORECASE)
_AFTER = re.compile(rf"(?:^|[\s,;])({_SPOKEN})\s+({_N})(?![\w])", re.IGNORECASE)
_BEFORE = re.compile(rf"\b(twice|double|triple|half)\b(?:\sof\b)?(?:\s({_N})(?!\w|\.\d))?", re.IGNORECASE)
_FACTORS = {"twice": "* 2", "double": "* 2", "triple": "* 3", "half": "/ 2"}
_FOR_EXPRESSIONS = re.compile(r"\b(?:arithmetic|calculat\w*|expressions?|formula)\b", re.IGNORECASE)
_EMPTY_WORDS = frozenset(
    ["a", "add", "an", "and", "answer", "are", "by", "calculate", "compute", "could", "do", "does", "equal", "equals",
     "exactly", "find", "for", "give", "how", "i", "is", "it", "many", "me", "much", "of", "please", "result", "s",
     "so", "sum", "tell", "that", "the", "then", "this", "to", "total", "value", "was", "what", "which", "work", "out",
     "you"]
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A tool that was called for the question, and what it said. of_sum: it was given an expression."""

    name: str
    text: str
    of_sum: bool


@dataclass(frozen=True)
class Situation:
    """Where a conversation with tools stands: the question, and what the tools have said to it."""

    question: str
    before: tuple[Message, ...]
    seen: tuple[Seen, ...]


def read_situation(messages: Sequence[Message]) -> Situation:
    """Return the last question, what was said before the tools were asked, and what these have said since.

    What a user's message right after a tool's says is not the question, but how to go on with it.
    """
    places = [
        place
        for place, message in enumerate(messages)
        if message.role == "user" and (not place or messages[place - 1].role != "tool")
    ]
    at = places[-1] if places else len(messages) - 1
    calls = {call.id: call for message in messages[at:] for call in message.tool_calls}
    seen = [
        Seen(call.name, message.text, _of_sum(call.arguments))
        for message in messages[at:]
        if message.role == "tool" and (call := calls.get(message.tool_call_id or "")) is not None
    ]
    return Situation(messages[at].text if messages else "", tuple(messages[: at + 1]), tuple(seen))


def _of_sum(arguments: str) -> bool:
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    values = list(given.values()) if isinstance(given, dict) else []
    return len(values) == 1 and isinstance(values[0], str) and _WHOLE.fullmatch(values[0].strip()) is not None


def choose(
    request: Request, situation: Situation, rank: Callable[[Sequence[str], str], list[str]], source: Source
) -> list[tuple[str, dict[str, Any]]]:
    """Return the tools to call now, with their arguments; none when it is time to answer.

    Those named in the question, else one that takes expressions where there is one to work out, and the nearest of the
    others where words are left to look up. rank: texts by their likeness to a text, closest first.
    """
    called = {seen.name for seen in situation.seen}
    fresh = [tool for tool in request.tools if tool.name not in called]
    question = situation.question
    named = [tool for tool in fresh if re.search(rf"(?<!\w){re.escape(tool.name)}(?!\w)", question)]
    if named and not called:
        return [(tool.name, _arguments(tool, source)) for tool in named]
    chosen: list[tuple[str, dict[str, Any]]] = []
    for tool in fresh:
        expression = _expression(question, situation.seen) if _expression_key(tool) else None
        if expression is not None and not chosen:
            chosen.append((tool.name, {str(_expression_key(tool)): expression}))
    others = {_told(tool): tool for tool in fresh if _expression_key(tool) is None}
    was_looked_up = any(not seen.of_sum for seen in situation.seen)
    if others and not was_looked_up and _words_left(question):
        nearest = others[rank(list(others), question)[0]]
        chosen.append((nearest.name, _arguments(nearest, source)))
    return chosen


def _told(tool: Tool) -> str:
    return f"{tool.name.replace('_', ' ')}: {tool.description}"


def _arguments(tool: Tool, source: Source) -> dict[str, Any]:
    filled: dict[str, Any] = objects.fill(_required_only(tool.parameters), source)
    return filled


def _required_only(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without what may be left out: its default is a better guess than ours."""
    required = schema.get("required", ())
    properties = {name: part for name, part in schema.get("properties", {}).items() if name in required}
    return {**schema, "type": "object", "properties": properties}


def _expression_key(tool: Tool) -> str | None:
    """Return which argument of a tool takes an arithmetic expression: the one text it needs, if it speaks of such."""
    schema = _required_only(tool.parameters)
    names = list(schema["properties"])
    if len(names) != 1 or schema["properties"][names[0]].get("type") != "string":
        return None
    said = f"{names[0]} {schema['properties'][names[0]].get('description', '')} {tool.description}"
    return names[0] if _FOR_EXPRESSIONS.search(said) else None


# --- expressions --------------------------------------------------------------------------------------------------


def _expression(question: str, seen: Sequence[Seen]) -> str | None:
    """Return the expression that a question asks to work out; where a number is missing, from what was looked up."""
    share = _SHARE.search(question)
    if share and share[2]:
        return f"{_plain(share[1])} / 100 * {_plain(share[2])}"
    if sums := _sums(question):
        return _spelt(max(sums, key=len))
    if (before := _BEFORE.search(question)) and before[2]:
        return _multiple(before, _plain(before[2]))
    number = _number_said(question, seen)
    return None if number is None else _with_number(question, number)


def _with_number(question: str, number: str) -> str | None:
    """Return the expression that a question asks to work out with a number that it does not say."""
    if share := _SHARE.search(question):
        return f"{_plain(share[1])} / 100 * {number}"
    if after := _AFTER.search(question):
        return f"{number} {_sign(after[1])} {_plain(after[2])}"
    if before := _BEFORE.search(question):
        return _multiple(before, number)
    return None


def _multiple(found: re.Match[str], number: str) -> str:
    return f"{number} {_FACTORS[found[1].casefold()]}"


def _sums(question: str) -> list[str]:
    found = [match[0].strip() for match in _WHOLE.finditer(question)]
    return [text for text in found if not _RANGE.fullmatch(text)]


def _number_said(question: str, seen: Sequence[Seen]) -> str | None:
    said = [each.text for each in seen if not each.of_sum and not each.text.startswith("error:")]
    found = objects.number_near("\n".join(best_sentences(said, question)), question) if said else None
    return None if found is None else f"{found:g}" if found != int(found) else str(int(found))


def _plain(number: str) -> str:
    return number.replace(",", "")


def _spelt(expression: str) -> str:
    """Return an expression with signs for its words, and without brackets that do not match."""
    text = re.sub(rf"\s({_SPOKEN})\s", lambda found: f" {_sign(found[1])} ", expression, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\s)x(?=\s)", "*", text, flags=re.IGNORECASE)
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    n_more = text.count("(") - text.count(")")
    return text + ")" * n_more if n_more >= 0 else text.replace("(", "").replace(")", "")


def _sign(word: str) -> str:
    return _OPERATORS[" ".join(word.casefold().split())]


def _words_left(question: str) -> list[str]:
    rest = question
    for pattern in (_SHARE, _WHOLE, _AFTER, _BEFORE):
        rest = pattern.sub(" ", rest)
    return [word for word in re.findall(r"[^\W\d_]+", rest.casefold()) if word not in _EMPTY_WORDS]


# --- answers ------------------------------------------------------------------------------------------------------


def answer_from(situation: Situation) -> str:
    """Return what the tools have said to the question: a sum as it is, of all else the best sentence.

    A sum that was worked out after something was looked up stands for it.
    """
    seen = [each for each in situation.seen if not each.text.startswith("error:")]
    if not seen:
        return NOTHING_SAID
    if seen[-1].of_sum and not _sums(situation.question):
        return seen[-1].text
    parts = [
        each.text if each.of_sum else " ".join(best_sentences([each.text], situation.question))
        for each in seen
    ]
    return " ".join(filter(None, parts)) or NOTHING_SAID


def best_sentences(texts: Sequence[str], question: str) -> list[str]:
    """Return the sentence of each text that is nearest to the question."""
    from llmops.models.ngrams import Neighbours

    found = []
    for text in texts:
        sentences = reading.passage_sentences(text) or [text]
        place = int(Neighbours(sentences).similarities(question).argmax())
        found.append(sentences[place])
    return found
