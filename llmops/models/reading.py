"""What a conversation asks for, read by patterns: instructions, example turns, answers, passages, question.

The `embedded` model understands nothing, so all it knows of a prompt is what these patterns find. They only
read; scoring and choosing belong to `embedded.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmops.records import Message

MAX_NAME_WORDS = 5
MAX_NAME_LENGTH = 48
MAX_HEAD_LENGTH = 240
SUMMARY_SENTENCES = 3  # the lead of three sentences is the customary baseline of summarisation
FEWEST_WORDS = 4  # a shorter "sentence" of a passage is most often its title

PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
SENTENCE_END = re.compile(
    r"((?<![.!?…])(?:[!?…]|(?<!\b[A-Za-z])(?<!\b(?:Dr|Mr|Ms|St|No|vs))(?<!\bMrs)\.)[.!?…]*[\"'”’)\]]*)\s+"
    r"|([。！？]+)\s*"
)
WRAPPED_FROM = 60  # a line at least this long, and without an end, goes on in the next
BULLET = re.compile(r"[^\S\n]*(?:[-*•]|\d{1,3}[.)]|\[\d{1,3}\]|#{1,6})[^\S\n]+")

TASK = re.compile(
    r"\W*(?:please\s+|you\s+(?:will|must|should)\s+|your\s+task\s+is\s+to\s+)?"
    r"(?:answer|assign|choose|classify|decide|determine|extract|find|given|identify|judge|label|name|output|pick"
    r"|quote|rate|read|reply|respond|return|route|say|select|sort|state|summari[sz]e|tell|tl;?dr|translate"
    r"|which\s+(?:of|sentence)|write)\b",
    re.IGNORECASE,
)
SUMMARY = re.compile(r"\b(?:summari[sz]\w*|summary|tl;?dr)\b", re.IGNORECASE)
EXTRACTION = re.compile(r"\b(?:copy|extract|find|quote|which\s+sentence)\b", re.IGNORECASE)
COUNT = re.compile(
    r"\b(\d{1,2}|an?|one|two|three|four|five|six)(?:\s+|-)(?:\w+\s+)?sentences?\b", re.IGNORECASE
)
COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}

SECTION = re.compile(
    r"^\W{0,8}(?:passages?|contexts?|documents?|sources?|texts?|articles?|excerpts?|background|input|e-?mail|message"
    r"|review|ticket)(?:[^\S\n]*\[?\d+\]?)?[^\S\n]*[:：][^\S\n]*",
    re.IGNORECASE | re.MULTILINE,
)
QUESTION = re.compile(
    r"^\W{0,8}(?:(?:user(?:'s)?\s+)?question|query|q)[^\S\n]*[:：]\s*(.+(?:\n(?!\s*\n).+)*)",
    re.IGNORECASE | re.MULTILINE,
)

LISTING = re.compile(
    r"\b(?:one\s+of|either|choose|classify|pick|select|labels?|categor(?:y|ies)|class(?:es)?|options?|choices?"
    r"|intents?|teams?|topics?|answers|values|(?:answer|reply|respond|return|output|say)\b[^.:\n]*"
    r"\b(?:with|only|word|name))\b",
    re.IGNORECASE,
)
AFTER_COLON = re.compile(r"^([^:\[\n]*)[:\[][^\S\n]*([^\n]+)", re.MULTILINE)
LIST_END = re.compile(r"\]|[.!?](?:\s|$)")
ITEM = r"(?:[\"'`“‘][^\"'`“‘”’\n]{1,48}[\"'`”’]|[^\W\d_][\w-]*)"
IN_SENTENCE = re.compile(
    rf"\b(?:one\s+of|either|(?:answer|reply|respond|say|output|return)(?:\s+(?:only|just|with|the\s+word))*"
    rf"|(?:classify|label|rate|mark)\b[^.:\n]{{0,120}}?\bas)\s+"
    rf"({ITEM}(?:,\s*{ITEM})*,?\s+or\s+{ITEM})(?=(?:\s+only)?\s*(?:[.,;:!?)\n]|$))",
    re.IGNORECASE,
)
CONTINUED = re.compile(r"\n[^\S\n]+(?![-*•\s\d])")
BETWEEN = re.compile(r"\s*[,;|/]\s*(?:(?:or|and)\s+)?|\s+(?:or|and)\s+", re.IGNORECASE)
QUOTES = " \t\"'`“”‘’*[]{}().!"


@dataclass(frozen=True)
class Reading:
    """A conversation, sorted: what is asked, what was shown (user, assistant), and what it is asked about."""

    instructions: str
    turns: tuple[tuple[str, str], ...]
    text: str


def read_messages(messages: Sequence[Message]) -> Reading:
    """Return the instructions, the example turns and the text of a conversation.

    Instructions are the system messages. Only where these give no task, and no examples do, are they looked
    for in the last user message as well: its leading paragraphs that begin like one, or its last, or what
    stands before its first colon. So an instruction inside a user's text stays text once a prompt says what
    to do. Turns are a user message and the assistant's that follows it, before the last user message.
    """
    system = "\n\n".join(message.text for message in messages if message.role == "system")
    spoken = [message for message in messages if message.role != "system"]
    last = max((place for place, message in enumerate(spoken) if message.role == "user"), default=None)
    if last is None:
        instructions, text = _split_task(system)
        return Reading(instructions, (), text)
    text = spoken[last].text
    turns = tuple(
        (shown.text, answer.text)
        for shown, answer in pairwise(spoken[:last])
        if shown.role == "user" and answer.role == "assistant"
    )
    if turns or _gives_task(system):
        return Reading(system, turns, text)
    task, text = _split_task(text)
    return Reading(f"{system}\n\n{task}".strip(), turns, text)


def _gives_task(system: str) -> bool:
    return any(TASK.match(sentence) for sentence in sentences(system)) or bool(listed_answers(system))


def _split_task(message: str) -> tuple[str, str]:
    """Return (instructions, text) of a message that may hold both; no text left means no instructions."""
    paragraphs = PARAGRAPH.split(message.strip())
    n_leading = 0
    for paragraph in paragraphs[:-1]:
        if not (TASK.match(paragraph) or (n_leading and BULLET.match(paragraph))):
            break
        n_leading += 1
    if n_leading:
        return "\n\n".join(paragraphs[:n_leading]), "\n\n".join(paragraphs[n_leading:])
    if len(paragraphs) > 1:
        ends_in_task = TASK.match(paragraphs[-1]) is not None
        return (paragraphs[-1], "\n\n".join(paragraphs[:-1])) if ends_in_task else ("", message)
    head, colon, rest = message.partition(":")
    head += colon
    if LISTING.search(head) and "\n" in rest:  # what stands after this colon are the answers
        listed, _, rest = rest.partition("\n")
        head += listed
    is_task = TASK.match(head) is not None and len(head) <= MAX_HEAD_LENGTH
    return (head, rest.strip()) if is_task and rest.strip() else ("", message)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, bullets and headings without their marks.

    Lines end a sentence too, but for those that are wrapped: a long one without an end, or one before a line
    that begins with a small letter.
    """
    parts = (" ".join(BULLET.sub("", part, count=1).split()) for part in _pieces(text))
    return [part for part in parts if part]


def _pieces(text: str) -> Iterator[str]:
    for paragraph in PARAGRAPH.split(text):
        lines = [""]
        for line in paragraph.splitlines():
            before = lines[-1].rstrip()
            wrapped = len(before) >= WRAPPED_FROM and before[-1] not in ".!?:"
            if before and not BULLET.match(line) and (wrapped or line.lstrip()[:1].islower()):
                lines[-1] = f"{before} {line.strip()}"
            else:
                lines.append(line)
        for line in lines:
            yield from SENTENCE_END.sub(r"\1\2\n", line).splitlines()


def passage_sentences(text: str) -> list[str]:
    """Return the sentences of a text that may answer something, titles only where there is nothing else."""
    found = sentences(SECTION.sub("", text))
    return [sentence for sentence in found if len(sentence.split()) >= FEWEST_WORDS] or found


def summary_length(instructions: str) -> int | None:
    """Return how many sentences of summary are asked for, None when no summary is."""
    if not SUMMARY.search(instructions):
        return None
    count = COUNT.search(instructions)
    if count is None:
        return SUMMARY_SENTENCES
    word = count.group(1).lower()
    return max(1, int(word)) if word.isdecimal() else COUNTS[word]


def question_and_passages(reading: Reading) -> tuple[str, str] | None:
    """Return (question, passages), None where there are not both.

    The question is what a line "Question:" says, else the last short paragraph that ends in a question mark.
    Passages are the rest of the text; where nothing is left, what follows the first "Passages:", "Context:"
    or the like in the instructions. With example turns the passages must stand under such a heading.
    """
    question, rest = _question(reading.text)
    marked = SECTION.search(rest) is not None
    if question and rest.strip() and (marked or not reading.turns):
        return question, rest.strip()
    section = SECTION.search(reading.instructions)
    given = reading.instructions[section.end() :].strip() if section else ""
    return (reading.text, given) if given and reading.text.strip() else None


def _question(text: str) -> tuple[str, str]:
    """Return (question, what else the text says); the question is empty where none is asked."""
    line = QUESTION.search(text)
    if line:
        return line.group(1).strip(), text[: line.start()] + "\n\n" + text[line.end() :]
    paragraphs = PARAGRAPH.split(text.strip())
    for place in range(len(paragraphs) - 1, -1, -1):
        if paragraphs[place].rstrip().endswith(("?", "？")) and len(paragraphs[place]) <= MAX_HEAD_LENGTH:
            return paragraphs[place], "\n\n".join(paragraphs[:place] + paragraphs[place + 1 :])
    return "", text


def plain(answer: str) -> str:
    """Return an answer without case, quotes and closing point: what makes two answers the same."""
    return answer.strip(QUOTES).casefold()


def listed_answers(instructions: str) -> tuple[str, ...]:
    """Return the answers that instructions allow, in their order; empty where they list none.

    The first found of these counts. A bulleted list ("- billing: invoices, charges" or "- billing") under a
    line that speaks of labels, options, "one of", "answer with" or the like. What such words list after a
    colon or a bracket: "Answer with one word only: yes, no, unclear." Words or quoted phrases joined by "or" after
    "answer", "one of", "classify ... as": "Answer yes or no." A list has two names or more, of at most five
    words each.
    """
    for found in (_bulleted(instructions), _after_colon(instructions), _in_sentence(instructions)):
        names = tuple(dict.fromkeys(found))
        if len(names) >= 2:
            return names
    return ()


def _bulleted(instructions: str) -> list[str]:
    names: list[str] = []
    above = ""
    for line in [*instructions.splitlines(), ""]:
        mark = BULLET.match(line)
        if mark and (names or LISTING.search(above.rsplit(". ", 1)[-1])):
            names.append(re.split(r":\s|:$|\s[-–—=]\s|\s\(", line[mark.end() :], maxsplit=1)[0].strip(QUOTES))
        elif line.strip() and not (names and line[0].isspace()):
            if _are_names(names):
                return names
            names, above = [], line
    return names if _are_names(names) else []


def _after_colon(instructions: str) -> list[str]:
    for before, after in AFTER_COLON.findall(instructions):
        clause = sentences(before)[-1:]
        names = _split_list(LIST_END.split(after, maxsplit=1)[0])
        if clause and LISTING.search(clause[0]) and _are_names(names):
            return names
    return []


def _in_sentence(instructions: str) -> list[str]:
    found = IN_SENTENCE.search(instructions)
    return _split_list(found.group(1)) if found else []


def _split_list(text: str) -> list[str]:
    return [name for name in (part.strip(QUOTES) for part in BETWEEN.split(text.strip(QUOTES))) if name]


def _are_names(names: Sequence[str]) -> bool:
    return len(names) >= 2 and all(
        name and len(name) <= MAX_NAME_LENGTH and len(name.split()) <= MAX_NAME_WORDS for name in names
    )


def describe(names: Sequence[str], instructions: str) -> list[str]:
    """Return each name with what the instructions say of it.

    That is the line that begins with the name and a colon, a dash or a bracket, its indented continuation
    included; else the sentences that speak of this name and of no other.
    """
    lines = [BULLET.sub("", line, count=1) for line in CONTINUED.sub(" ", instructions).splitlines()]
    mentions = [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in names]
    alone: dict[int, list[str]] = {}
    for sentence in sentences(instructions):
        named = [place for place, mention in enumerate(mentions) if mention.search(sentence)]
        if len(named) == 1:
            alone.setdefault(named[0], []).append(sentence)
    return [
        f"{name}: {_line_of(name, lines) or ' '.join(alone.get(place, ()))}"
        for place, name in enumerate(names)
    ]


def _line_of(name: str, lines: Sequence[str]) -> str:
    pattern = re.compile(rf"\W*{re.escape(name)}[\"'`”’*]*\s*(?:[:(=]|\s[-–—])\s*(.+)", re.IGNORECASE)
    return next((match.group(1) for match in map(pattern.match, lines) if match), "")
