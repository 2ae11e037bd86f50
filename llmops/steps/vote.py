"""The `vote` step: one thing carried out several times, each time anew, and what most of them give.

Self-consistency: Wang et al., https://arxiv.org/abs/2203.11171.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from llmops.definitions.base import canonical, identity_of
from llmops.definitions.chain import Vote, wiring
from llmops.errors import LlmopsError, StepError
from llmops.records import Span, sampled
from llmops.steps.base import Bound, Context, Halted, Holding, Place, Program, end_of, filled, with_error
from llmops.steps.side_by_side import side_by_side


class Ballot(NamedTuple):
    """What one sample said. key: what makes it the same as another."""

    key: str
    value: Any


@dataclass(frozen=True)
class VoteProgram(Holding):
    """What each sample carries out. identity: of how and of what."""

    vote: Vote
    do: Bound
    identity: str
    kind: Literal["vote"] = "vote"

    @property
    def parts(self) -> Mapping[str, Program]:
        """What is carried out for a sample."""
        return {"do": self.do.program}

    @property
    def least_calls(self) -> int:
        """Those of all samples."""
        return self.vote.n * self.do.program.least_calls

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:  # noqa: ARG002 - each sample fills its own
        """Return the span whose output has the `value` that won, the `votes` for each, and `n_failed`.

        A sample that the model refused, or that failed by itself, is counted and has no vote. What the world let fail
        fails the step: the next run takes the samples that are missing, and pays for no other again.
        """
        index = context.trace.open()
        shown = {"n": self.vote.n, "tie": self.vote.tie}
        try:
            samples = await self._samples(context, place, index)
            spans = [each for each in samples if isinstance(each, Span)]
            if not spans:
                raise next(each for each in samples if isinstance(each, LlmopsError))
            ballots = [self._ballot(span, place) for span in spans]
        except LlmopsError as error:
            context.trace.close(with_error(place.span(index, self.kind, shown), error))
            raise
        output = {**counted(ballots, self.vote.tie), "n_failed": self.vote.n - len(spans)}
        took_s = end_of(spans, place.start_s) - place.start_s
        return context.trace.close(place.span(index, self.kind, shown, output=output, duration_s=took_s))

    async def _samples(self, context: Context, place: Place, parent: int) -> list[Span | LlmopsError]:
        async def carry_out(number: int) -> Span | LlmopsError:
            anew = replace(context, repeat=sampled(context.repeat, number))
            inside = Place(f"{place.name}[{number}]", parent, place.start_s, place.scope)
            try:
                return await self.do.carry_out(anew, inside)
            except (StepError, Halted) as error:
                return error

        return await side_by_side(self.vote.n, self.vote.concurrency, carry_out)

    def _ballot(self, span: Span, place: Place) -> Ballot:
        value = span.output
        if self.vote.on is not None:
            value = filled(self.vote.on, {**place.scope, "output": value}, f"{place.name}: on")
        return Ballot(_key(value), value)


def _key(value: Any) -> str:
    """Return what makes values the same: texts but for case and spaces, anything else as it is."""
    return " ".join(value.casefold().split()) if isinstance(value, str) else canonical(value)


def counted(ballots: Sequence[Ballot], tie: Literal["first", "shortest", "none"]) -> dict[str, Any]:
    """Return the value that won, as it was first given, and how many votes each has, the most first.

    ballots: at least one, in the order of samples.
    """
    votes: dict[str, int] = {}
    values: dict[str, Any] = {}
    for ballot in ballots:
        votes[ballot.key] = votes.get(ballot.key, 0) + 1
        values.setdefault(ballot.key, ballot.value)
    ranked = sorted(votes, key=lambda key: -votes[key])  # stable: the first given stands before the others
    tied = [key for key in ranked if votes[key] == votes[ranked[0]]]
    winner = min(tied, key=len) if tie == "shortest" else tied[0]
    is_open = tie == "none" and len(tied) > 1
    return {
        "value": None if is_open else values[winner],
        "votes": [{"value": values[key], "n": votes[key]} for key in ranked],
    }


def open_vote(definition: Vote, do: Bound) -> VoteProgram:
    """Return a vote over samples of what is bound."""
    return VoteProgram(definition, do, identity_of({"vote": wiring(definition), "do": do.program.identity}))
