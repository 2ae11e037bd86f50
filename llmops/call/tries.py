"""One call on its way to an answer: what became of each of its requests, and whether one may have been carried out.

Pure bookkeeping for `caller.py`, which sends; what it all comes to is added up by `money.py` and the journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from llmops.call.money import cost_of
from llmops.definitions.project import Price
from llmops.errors import ModelError, ModelTimeoutError, OutcomeUnknownError, ReplyError
from llmops.records import NOTHING, AnyReply, Call, CallState, HttpRequest, Reply, Spent


def is_unknown(error: ModelError) -> bool:
    """Say whether nobody knows what became of a request: it may have arrived, and no answer says that it failed."""
    return error.sent is None or (isinstance(error, ModelTimeoutError) and error.sent is not False)


@dataclass
class Tries:
    """The requests of one call in one carrying out.

    tokens: estimate of what it sends. price: None when unknown. known: the call as the journal had it, when nobody
    learnt what became of a request before. in_doubt: so it is now. attempts, spent: since they were last recorded.
    is_replaceable: whether another model is asked where this one is down.
    n_paid_for_nothing: replies that were billed and are none.
    """

    call: Call
    tokens: int
    price: Price | None
    known: Call | None
    is_replaceable: bool = False
    in_doubt: bool = field(init=False)
    n_sent: int = 0
    n_paid_for_nothing: int = 0
    attempts: int = 0
    spent: Spent = NOTHING
    ended_at: datetime | None = None

    def __post_init__(self) -> None:
        self.in_doubt = self.known is not None

    @property
    def upper_usd(self) -> float:
        """What one request costs at most; 0 without a price."""
        return self.call.upper_usd or 0.0

    @property
    def state(self) -> CallState:
        """Where the call stands while it has no answer."""
        if self.in_doubt:
            return CallState.UNKNOWN
        return CallState.FAILED if self.n_sent else CallState.PLANNED

    def answered(self, reply: AnyReply) -> Spent:
        """Return what a request came to that was answered."""
        return self._sent(**self._charged(reply))

    def failed(self, error: ModelError) -> Spent:
        """Return what a request came to that failed: a reply that is none was billed, an error was not."""
        if error.sent is False:
            return NOTHING
        self.n_paid_for_nothing += _is_billed(error)
        if is_unknown(error):
            return self.lost()
        if error.status is not None:
            return self._sent()
        return self._sent(usd=self.upper_usd, n_unpriced=int(self.call.upper_usd != 0))

    def lost(self) -> Spent:
        """Return what a request comes to of which nobody learns what became of it."""
        return self._sent(
            n_unknown=1, n_unbounded=int(self.call.upper_usd is None), hidden_usd=self.upper_usd
        )

    def found(self, reply: Reply) -> Spent:
        """Return what a request came to whose answer was found with the service: one unknown less."""
        lost = self.known or self.call
        if self.known is not None and self.known.owner is None:
            return Spent(**self._charged(reply))  # it stands in another run's account
        is_adrift = self.known is not None and self.known.n_unknown > self.known.attempts
        return Spent(
            n_calls=int(is_adrift),
            n_adrift=-int(is_adrift),
            n_unknown=-1,
            n_unbounded=-int(lost.upper_usd is None),
            hidden_usd=-(lost.upper_usd or 0.0),
            **self._charged(reply),
        )

    def note(self, spent: Spent) -> None:
        """Take in what a request came to."""
        self.spent = self.spent.plus(spent)
        self.n_sent += spent.n_calls
        self.attempts += spent.n_calls
        self.in_doubt = self.in_doubt or spent.n_unknown > 0

    def call_as(self, state: CallState, now: datetime, **changes: object) -> Call:
        """Return the call as it is to be recorded, with what came since it was last.

        now: its end; told of an end twice, the journal knows it by its time, so no two ends of a call have the same.
        """
        self.ended_at = now if self.ended_at is None else max(now, self.ended_at + timedelta(microseconds=1))
        counted = {"attempts": self.attempts, "n_unknown": max(self.spent.n_unknown, 0)}
        return self.call.model_copy(
            update={"state": state, "answered_at": self.ended_at, **counted, **changes}
        )

    def taken(self) -> Spent:
        """Return what came since it was last recorded, which it now is."""
        spent, self.spent, self.attempts = self.spent, NOTHING, 0
        return spent

    def is_worth_another(self, error: ModelError) -> bool:
        """Say whether to try again: what is billed and gives nothing, once and no more."""
        return self.n_paid_for_nothing <= 1 if _is_billed(error) else error.retryable

    def _sent(self, **more: Any) -> Spent:
        return Spent(n_calls=1, n_retried=int(self.n_sent > 0), n_repeated=int(self.in_doubt), **more)

    def _charged(self, reply: AnyReply) -> dict[str, Any]:
        cost = cost_of(reply.usage, self.price)
        return {"usd": self.upper_usd if cost is None else cost, "n_unpriced": int(cost is None)}


def _is_billed(error: ModelError) -> bool:
    """Say whether a reply was begun and billed that is none: it broke off, or makes no sense."""
    begun = isinstance(error, ModelTimeoutError) and error.sent is True
    return begun or (type(error) is ReplyError and error.kind == ReplyError.kind)


def outcome_unknown(call: Call, error: ModelError | None, policy: str) -> OutcomeUnknownError:
    """Return the error for a call that may have been carried out. error: why nothing more is known."""
    why = f": {error}" if error else ""
    wanted = "" if policy == "reconcile" else "; on_unknown: retry sends it again"
    if isinstance(call.request, HttpRequest):
        wanted = "; `idempotent: true` sends it again, where the service honours Idempotency-Key"
    return OutcomeUnknownError(
        f"model {call.model!r}: a request may have been carried out and billed, and is not sent again{why}{wanted}",
        model=call.model,
        sent=None,
    )
