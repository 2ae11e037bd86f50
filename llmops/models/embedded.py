"""The model that needs no network, key or money: it answers by n-grams, and is not a language model.

A baseline that reads the rendered messages: the whole flow runs offline on it, and every comparison can show
what no model at all would have scored. `reading.py` finds what a prompt asks for, `ngrams.py` what is alike,
`objects.py` fills JSON; here it is weighed and chosen.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from llmops.models import acting, objects, reading
from llmops.models.abilities import refuse_unable
from llmops.models.base import Ability, abilities_for
from llmops.models.tokens import (
    cut_to_tokens,
    estimate_request_tokens,
    estimate_tokens,
)
from llmops.records import Embeddings, ModelInfo, Reply, Status, ToolCall, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from llmops.definitions.project import ModelDefinition
    from llmops.models.ngrams import Neighbours
    from llmops.models.reading import Reading
    from llmops.records import EmbeddingRequest, Request

    Noise = Callable[[str], float]

NOTHING = "The last message is empty, so the embedded model has nothing to answer from."
SHARPNESS = 2  # power of a cosine as a vote; best of 1 to 6 on held-out training questions of banking77
LEAD = 0.5  # what the first sentence has over others as a summary, the second half of it: news leads
NOISE = 0.1  # scale of Gumbel noise at temperature 1, in shares of the votes and in cosines
KEPT = 64  # lists of answers whose features are kept, one or two for each prompt in use
VECTOR_SIZE = (
    1024  # dimensions of an embedding where none are asked for: enough to tell some thousand texts apart
)
DECIMALS = 9  # scores closer than this are ties
RESIDUE = frozenset({"neutral", "none", "other", "unclear", "unknown"})
RESIDUE_SCORE = 1e-6  # enough to win where nothing else speaks, too little to matter elsewhere


class EmbeddedModel:
    """Answers from the messages alone, in this order of what they ask for:

    - one of the allowed answers (`enum` of `response_format`, or a list in the instructions): the nearest,
      where the example turns vote, and so does each answer's name with what the instructions say of it;
    - a JSON object, or another value that is no string: each property by its name, description and schema;
    - a question about passages: their nearest sentence; a summary: leading and central sentences, as many as
      asked for; then, with example turns, the answer of the nearest, equal answers voting together;
    - else the sentence that is nearest to the instructions, if they say what to find, or the most central.

    With tools it first calls those that fit, each once, as `acting.py` says, and answers from what they say.

    Instructions are the system messages; where they give a task, nothing in a user's text is obeyed.
    Deterministic, but for `temperature` above 0: noise on the scores, from `seed` if given, else from the
    call's id. `top_p` and `reasoning_effort` are taken and change nothing.
    """

    version = "embedded@1"
    abilities = frozenset({Ability.CHAT, Ability.SCHEMA, Ability.TOOLS, Ability.EMBEDDINGS, Ability.INFO})
    settings = frozenset({"model"})
    parameters = frozenset({"temperature", "top_p", "max_tokens", "seed", "stop", "reasoning_effort"})

    def __init__(self, name: str, definition: ModelDefinition, environment: Mapping[str, str]) -> None:
        self.name = name
        self.definition = definition
        self.environment = environment
        self._listed = lru_cache(maxsize=KEPT)(reading.listed_answers)
        self._described = lru_cache(maxsize=KEPT)(_described)

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:  # noqa: ARG002
        """Return the answer at once: nothing is waited for, so no timeout can pass.

        Raises RequestError for images, which are beyond it.
        """
        self._refuse_unable(request)
        started = time.perf_counter()
        if Ability.TOOLS in abilities_for(request):
            calls, said = self._act(request, call_id)
            if calls:
                return self._calling(request, calls, started)
        else:
            asked = reading.read_messages(request.messages)
            said = self._answer(
                asked, request.response_format, _noise(request.parameters, asked.text, call_id)
            )
        said = _before_stop(said, request.parameters.get("stop"))
        limit = request.parameters.get("max_tokens")
        text = said if limit is None else cut_to_tokens(said, limit)
        usage = Usage(
            input_tokens=estimate_request_tokens(request),
            output_tokens=estimate_tokens(text),
            estimated=True,
        )
        return Reply(
            text=text,
            status=Status.OK if text == said else Status.TRUNCATED,
            finish_reason="stop" if text == said else "length",
            model=self.version,
            usage=usage,
            latency_s=time.perf_counter() - started,
            raw=json.dumps({"text": text}).encode(),
        )

    async def embed(self, request: EmbeddingRequest, *, call_id: str, timeout_s: float) -> Embeddings:  # noqa: ARG002
        """Return vectors of length 1, by what words and characters the texts have in common.

        As many dimensions as asked for, else VECTOR_SIZE. Raises RequestError for images.
        """
        from llmops.models.ngrams import vectors

        self._refuse_unable(request)
        started = time.perf_counter()
        texts = [each for each in request.inputs if isinstance(each, str)]
        found = vectors(texts, request.dimensions or VECTOR_SIZE)
        return Embeddings(
            vectors=tuple(map(tuple, found.tolist())),
            model=self.version,
            usage=Usage(input_tokens=estimate_request_tokens(request), output_tokens=0, estimated=True),
            latency_s=time.perf_counter() - started,
        )

    async def find(self, request: Request, *, call_id: str, timeout_s: float) -> Reply | None:  # noqa: ARG002
        """Raise RequestError: nothing is kept, and nothing can be lost on a way that there is not."""
        refuse_unable(self.name, "embedded", self.abilities, {Ability.RECONCILE})
        return None

    async def info(self, *, timeout_s: float) -> ModelInfo:  # noqa: ARG002
        """Return what it is: no language model."""
        return ModelInfo(model=self.version, kind="n-grams", provider="llmops")

    def _refuse_unable(self, request: Request | EmbeddingRequest) -> None:
        refuse_unable(self.name, "embedded", self.abilities, abilities_for(request))

    async def close(self) -> None:
        """Forget the answers kept; there is no connection to close."""
        self._listed.cache_clear()
        self._described.cache_clear()

    def _act(self, request: Request, call_id: str) -> tuple[tuple[ToolCall, ...], str]:
        """Return the tools to call now, or the answer from what they have said."""
        situation = acting.read_situation(request.messages)
        asked = reading.read_messages([message for message in situation.before if message.role != "tool"])
        noise = _noise(request.parameters, situation.question, call_id)
        asked = replace(asked, text=situation.question)

        def rank(texts: Sequence[str], text: str) -> list[str]:
            return _by_likeness(texts, text, noise)

        source = replace(self._source(asked, noise), quote=lambda _: [situation.question])
        chosen = acting.choose(request, situation, rank, source)
        if chosen:
            # Numbered on from what was asked before, so that every id of a conversation is its own.
            first = sum(len(message.tool_calls) for message in request.messages)
            calls = (
                ToolCall(
                    id=f"call_{first + place}", name=name, arguments=json.dumps(given, ensure_ascii=False)
                )
                for place, (name, given) in enumerate(chosen)
            )
            return tuple(calls), ""
        said = acting.answer_from(situation)
        if request.response_format is not None:
            said = self._answer(replace(asked, text=said), request.response_format, noise)
        return (), said

    def _calling(self, request: Request, calls: tuple[ToolCall, ...], started: float) -> Reply:
        usage = Usage(
            input_tokens=estimate_request_tokens(request),
            output_tokens=sum(estimate_tokens(call.name) + estimate_tokens(call.arguments) for call in calls),
            estimated=True,
        )
        return Reply(
            text="",
            finish_reason="tool_calls",
            tool_calls=calls,
            model=self.version,
            usage=usage,
            latency_s=time.perf_counter() - started,
            raw=json.dumps({"tool_calls": [call.model_dump() for call in calls]}).encode(),
        )

    def _answer(self, asked: Reading, schema: Mapping[str, Any] | None, noise: Noise) -> str:
        allowed = _allowed(schema or {})
        if allowed:
            return self._rank(allowed, asked, asked.turns, noise)[0]
        if schema and schema.get("type", "object" if "properties" in schema else "string") != "string":
            return json.dumps(objects.fill(schema, self._source(asked, noise)), ensure_ascii=False)
        listed = self._listed(asked.instructions)
        if listed and (not asked.turns or _answers_among(listed, asked.turns)):
            return self._rank(listed, asked, asked.turns, noise)[0]
        return _say(asked, noise)

    def _source(self, asked: Reading, noise: Noise) -> objects.Source:
        found = reading.passage_sentences(asked.text)

        def rank(names: Sequence[str], shown: Sequence[tuple[str, str]]) -> list[str]:
            return self._rank(tuple(names), asked, shown, noise)

        def quote(hint: str) -> list[str]:
            return _by_likeness(found, hint, noise)

        return objects.Source(asked.text, list(_parsed(asked.turns)), rank, quote)

    def _rank(
        self, names: tuple[str, ...], asked: Reading, turns: Sequence[tuple[str, str]], noise: Noise
    ) -> list[str]:
        """Return answers, the closest first; ties by name: their order in the prompt means nothing."""
        votes = _votes(names, asked.text, turns)
        likeness = self._described(names, asked.instructions).similarities(asked.text).tolist()
        for name, alike in zip(names, likeness, strict=True):
            votes[name] += alike**SHARPNESS
        total = sum(votes.values()) or 1.0
        for name in names:
            residue = RESIDUE_SCORE if name.casefold() in RESIDUE else 0.0
            votes[name] = round(votes[name] / total + residue + noise(name), DECIMALS)
        return sorted(names, key=lambda name: (-votes[name], name))


def _noise(parameters: Mapping[str, Any], text: str, call_id: str) -> Noise:
    """Return the noise a candidate's score gets: Gumbel's, so the best of noisy scores is a draw by softmax.

    A candidate's noise hangs on the seed, the text and the candidate, never on its place among others.
    """
    scale = NOISE * float(parameters.get("temperature") or 0.0)
    if not scale:
        return lambda _: 0.0
    seed = parameters.get("seed")
    salt = f"{call_id if seed is None else seed}\n{text}\n"

    def draw(candidate: str) -> float:
        digest = blake2b((salt + candidate).encode("utf-8", "surrogatepass"), digest_size=6).digest()
        return -scale * math.log(-math.log((int.from_bytes(digest, "big") + 0.5) / 2**48))

    return draw


def _allowed(schema: Mapping[str, Any]) -> tuple[str, ...]:
    values = [schema["const"]] if "const" in schema else schema.get("enum", ())
    return tuple(value if isinstance(value, str) else json.dumps(value) for value in values)


def _described(names: tuple[str, ...], instructions: str) -> Neighbours:
    return _pool(reading.describe(names, instructions))


def _pool(texts: Sequence[str]) -> Neighbours:
    from llmops.models.ngrams import Neighbours

    return Neighbours(texts)


def _votes(names: Sequence[str], text: str, turns: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return how much the example turns speak for each name: their likeness to the text, summed."""
    votes = dict.fromkeys(names, 0.0)
    if not turns:
        return votes
    by_plain = {reading.plain(name): name for name in names}
    likeness = _pool([shown for shown, _ in turns]).similarities(text).tolist()
    for (_, answer), alike in zip(turns, likeness, strict=True):
        name = by_plain.get(reading.plain(answer))
        if name is not None:
            votes[name] += alike**SHARPNESS
    return votes


def _answers_among(names: Sequence[str], turns: Sequence[tuple[str, str]]) -> bool:
    known = {reading.plain(name) for name in names}
    return any(reading.plain(answer) in known for _, answer in turns)


def _parsed(turns: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    """Yield the example turns whose answer is JSON, read."""
    for shown, answer in turns:
        with suppress(ValueError, RecursionError):
            yield shown, json.loads(answer)


def _say(asked: Reading, noise: Noise) -> str:
    """Return what is said where no answers are allowed: sentences of the text, or an example's answer."""
    n_summary = reading.summary_length(asked.instructions)
    is_question = n_summary is None or reading.QUESTION.search(asked.text)
    pair = reading.question_and_passages(asked) if is_question else None
    if pair:
        question, passages = pair
        return _by_likeness(reading.passage_sentences(passages), question, noise)[0]
    if n_summary is None and asked.turns:
        return _like_the_turns(asked, noise)
    found = reading.passage_sentences(asked.text)
    if not found:
        return NOTHING
    if n_summary:
        best = sorted(_by_centrality(found, LEAD, noise)[:n_summary])
        return " ".join(found[place] for place in best)
    hint = asked.instructions if reading.EXTRACTION.search(asked.instructions) else ""
    return _by_likeness(found, hint, noise)[0]


def _like_the_turns(asked: Reading, noise: Noise) -> str:
    """Return the answer of the example turns with most votes, ties by order."""
    answers: dict[str, str] = {}
    for _, answer in asked.turns:
        answers.setdefault(reading.plain(answer), answer.strip())
    votes = _votes(list(answers), asked.text, asked.turns)
    total = sum(votes.values()) or 1.0
    return answers[max(answers, key=lambda key: round(votes[key] / total + noise(key), DECIMALS))]


def _by_likeness(found: Sequence[str], hint: str, noise: Noise) -> list[str]:
    """Return sentences, the nearest to a hint first; where none is near at all, the most central first."""
    if not found:
        return []
    likeness = _pool(found).similarities(hint).tolist()
    order = _best_first(found, likeness, noise) if any(likeness) else _by_centrality(found, 0.0, noise)
    return [found[place] for place in order]


def _by_centrality(found: Sequence[str], lead: float, noise: Noise) -> list[int]:
    """Return positions of sentences, the most like all of them together first; `lead` favours the leading."""
    likeness = _pool(found).similarities(" ".join(found)).tolist()
    scores = [alike + lead / (place + 1) for place, alike in enumerate(likeness)]
    return _best_first(found, scores, noise)


def _best_first(found: Sequence[str], scores: Sequence[float], noise: Noise) -> list[int]:
    noisy = [round(score + noise(sentence), DECIMALS) for score, sentence in zip(scores, found, strict=True)]
    return sorted(range(len(found)), key=lambda place: (-noisy[place], place))


def _before_stop(text: str, stop: str | Sequence[str] | None) -> str:
    """Return what stands before the first of the stop texts."""
    stops = [stop] if isinstance(stop, str) else stop or []
    return text[: min((place for place in map(text.find, filter(None, stops)) if place >= 0), default=None)]
