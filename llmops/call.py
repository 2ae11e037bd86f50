"""The one path of every model call: request -> reply, paid for once.

Reads the journal for a reply already paid for; otherwise waits for the deployment's limits, sends, retries what
is worth it, and writes down what came. Prompts, judges and embedders all come through here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from llmops.definitions.base import identity_of
from llmops.definitions.project import Limits, ModelDefinition, Price
from llmops.errors import AccessError, BudgetError, LlmopsError, ModelError, RequestError
from llmops.models.base import Model
from llmops.models.tokens import estimate_input_tokens, estimate_tokens
from llmops.records import Call, CallState, ErrorInfo, ModelVersion, Reply, Request, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UNSAID_OUTPUT_TOKENS = 4096
"""What a reply is taken to need at most when no `max_tokens` says so; for the budget only."""

LONGEST_WAIT_S = 300.0
"""A service that asks for more is left for a later run."""

SAME_REFUSALS = 3
"""So many requests refused with the same words, and none answered: the parameters are wrong, not the cases."""

_BACKOFF_S = (0.5, 20.0)


class Stopping(LlmopsError):
    """The run is ending: what has been sent may still come home, and nothing more is sent."""


class Log(Protocol):
    """Where calls are written down: the journal's writer."""

    async def intend(self, call: Call) -> Call | None:
        """Return the call if it has been answered before; otherwise note that it is about to be sent."""

    def record_call(self, call: Call) -> None:
        """Note what came of a call."""


@dataclass
class Budget:
    """What a run may still spend; what is in flight counts at its upper estimate.

    n_unpriced: requests whose cost nobody knows; they are in `spent_usd` at their upper estimate.
    """

    usd: float | None = None
    calls: int | None = None
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    n_calls: int = 0
    n_unpriced: int = 0

    def reserve(self, upper_usd: float) -> None:
        """Set money aside for one request.

        Raises BudgetError when it could not be paid even if all in flight cost their upper estimate.
        """
        if self.calls is not None and self.n_calls >= self.calls:
            raise BudgetError(f"the budget of {self.calls} calls is used up")
        if self.usd is not None and self.spent_usd + self.reserved_usd + upper_usd > self.usd:
            raise BudgetError(
                f"the budget of {self.usd:.2f} USD would be passed: {self.spent_usd:.4f} spent, "
                f"{self.reserved_usd:.4f} in flight, {upper_usd:.4f} more for the next call at most"
            )
        self.n_calls += 1
        self.reserved_usd += upper_usd

    def settle(self, upper_usd: float, cost_usd: float | None) -> None:
        """Turn what was set aside into what it cost; an unknown cost counts at its upper estimate."""
        self.reserved_usd -= upper_usd
        self.spent_usd += upper_usd if cost_usd is None else cost_usd
        self.n_unpriced += cost_usd is None


class Limiter:
    """Keeps one deployment's limits: requests in flight, requests and tokens a minute, and pauses asked for."""

    def __init__(
        self,
        limits: Limits,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._now = now
        self._request_s = 60 / limits.rpm if limits.rpm else 0.0
        self._token_s = 60 / limits.tpm if limits.tpm else 0.0
        self._next_request = self._next_token = self._open_at = 0.0

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """Hold one of the places in flight, entered when the limits allow a request of so many tokens."""
        async with self._slots:
            await self._wait_turn(tokens)
            yield

    def pause(self, seconds: float) -> None:
        """Let nobody send to this deployment for a while."""
        self._open_at = max(self._open_at, self._now() + seconds)

    async def _wait_turn(self, tokens: int) -> None:
        now = self._now()
        turn = max(now, self._next_request, self._next_token)
        self._next_request = turn + self._request_s
        self._next_token = turn + self._token_s * tokens
        while (wait := max(turn, self._open_at) - self._now()) > 0:  # a pause may grow meanwhile
            await self._sleep(wait)


@dataclass
class Deployment:
    """One model of the project as a run uses it. stopped: why it is not asked any more.

    proven: one request has come back, whatever it brought. The first goes alone, under the lock `probe`, so that
    a wrong name, address or key costs one request and not as many as are in flight.
    answered: there has been a reply. refusals: how often each message said that a request is wrong, before that.
    """

    version: ModelVersion
    definition: ModelDefinition
    model: Model
    limiter: Limiter
    stopped: AccessError | None = None
    proven: bool = False
    answered: bool = False
    refusals: Counter[str] = field(default_factory=Counter)
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def price(self) -> Price | None:
        """US dollars for a million tokens; None when unknown."""
        return self.definition.pricing()

    def note_failure(self, error: ModelError) -> None:
        """Stop asking when the model is out of reach, or takes no request of ours for one and the same reason."""
        if isinstance(error, AccessError):
            self.stopped = error
        elif isinstance(error, RequestError) and error.kind == RequestError.kind and not self.answered:
            self.refusals[str(error)] += 1
            if self.refusals[str(error)] == SAME_REFUSALS:
                self.stopped = AccessError(
                    f"{error}; so said of the first {SAME_REFUSALS}, and it is asked no more"
                )


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply with what it cost. reused: it was in the journal and nothing was sent."""

    call_id: str
    reply: Reply
    cost_usd: float | None
    reused: bool


@dataclass
class Caller:
    """Asks models for a run. sleep is a parameter so that waiting can be watched.

    idle: set while no request is in flight.
    """

    deployments: Mapping[str, Deployment]
    log: Log
    budget: Budget
    utc_now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    n_reused: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    _n_sent: int = 0
    _stopping: bool = False
    _in_flight: dict[str, asyncio.Future[Answer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.idle.set()

    def stop(self) -> None:
        """Send nothing more; whoever would gets Stopping instead."""
        self._stopping = True

    async def ask(self, model: str, request: Request, *, repeat: int = 0, fresh: int = 0) -> Answer:
        """Return the reply to a request, from the journal or from the model.

        repeat, fresh: part of the call's identity, so that repeats stay independent of one another.

        Raises the leaves of ModelError when there is none, and BudgetError before anything is sent.
        """
        deployment = self.deployments[model]
        call_id = call_identity(deployment.version.identity, request, repeat, fresh)
        while (shared := self._in_flight.get(call_id)) is not None:
            await asyncio.wait({shared})
            if not shared.cancelled():  # else whoever asked for it was: then we ask
                return shared.result()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._in_flight[call_id] = future
        try:
            answer = await self._ask_once(deployment, call_id, request)
        except BaseException as error:
            future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            future.exception() if not future.cancelled() else None  # nobody may be waiting for it
            raise
        finally:
            del self._in_flight[call_id]
        future.set_result(answer)
        return answer

    async def _ask_once(self, deployment: Deployment, call_id: str, request: Request) -> Answer:
        call = Call(
            id=call_id,
            model=deployment.version.name,
            model_identity=deployment.version.identity,
            request=request,
            state=CallState.SENT,
            created_at=self.utc_now(),
        )
        known = await self.log.intend(call)
        if known is not None and known.reply is not None:
            self.n_reused += 1
            return Answer(call_id, known.reply, known.cost_usd, reused=True)
        return await self._send_and_record(deployment, call)

    async def _send_and_record(self, deployment: Deployment, call: Call) -> Answer:
        attempts = 0

        def count() -> None:
            nonlocal attempts
            attempts += 1

        try:
            reply = await self._send(deployment, call, count)
        except ModelError as error:
            info = ErrorInfo(kind=error.kind, message=str(error))
            self._note(call, state=CallState.FAILED, attempts=attempts, error=info)
            raise
        except (BudgetError, Stopping):
            self._note(call, state=CallState.FAILED if attempts else CallState.PLANNED, attempts=attempts)
            raise
        except asyncio.CancelledError:
            self._note(call, state=CallState.UNKNOWN if attempts else CallState.PLANNED, attempts=attempts)
            raise
        if reply.usage is None:
            reply = reply.model_copy(update={"usage": _estimated_usage(call.request, reply)})
        cost = cost_of(reply.usage, deployment.price)
        self._note(call, state=CallState.ANSWERED, attempts=attempts, reply=reply, cost_usd=cost)
        return Answer(call.id, reply, cost, reused=False)

    def _note(self, call: Call, **changes: object) -> None:
        self.log.record_call(call.model_copy(update={**changes, "answered_at": self.utc_now()}))

    async def _send(self, deployment: Deployment, call: Call, count: Callable[[], None]) -> Reply:
        """The one retry loop: full jitter between tries, what the service asks for obeyed by all its callers."""
        tokens = estimate_input_tokens(call.request.messages)
        limits = deployment.definition.limits
        for attempt in range(1, limits.attempts + 1):
            try:
                return await self._send_in_turn(deployment, call, tokens, count)
            except ModelError as error:
                wait = _wait_before_retry(error, call.id, attempt)
                if attempt == limits.attempts or wait is None:
                    raise
                if error.retry_after_s is not None:
                    deployment.limiter.pause(error.retry_after_s)
                await self.sleep(wait)
        raise AssertionError("a call has at least one attempt")

    async def _send_in_turn(
        self, deployment: Deployment, call: Call, tokens: int, count: Callable[[], None]
    ) -> Reply:
        if not deployment.proven:
            async with deployment.probe:
                if not deployment.proven:
                    try:
                        async with deployment.limiter.slot(tokens):
                            return await self._send_once(deployment, call, tokens, count)
                    finally:
                        deployment.proven = True
        async with deployment.limiter.slot(tokens):
            return await self._send_once(deployment, call, tokens, count)

    async def _send_once(
        self, deployment: Deployment, call: Call, tokens: int, count: Callable[[], None]
    ) -> Reply:
        if deployment.stopped is not None:
            raise deployment.stopped
        if self._stopping:
            raise Stopping("the run is ending")
        upper = upper_cost(call.request, tokens, deployment.price)
        self.budget.reserve(upper)
        count()
        cost: float | None = None
        self._n_sent += 1
        self.idle.clear()
        try:
            reply = await deployment.model.complete(
                call.request, call_id=call.id, timeout_s=deployment.definition.limits.timeout_s
            )
            deployment.answered = True
            cost = cost_of(reply.usage, deployment.price)
        except ModelError as error:
            deployment.note_failure(error)
            cost = 0.0 if error.sent is False or error.status is not None else None
            raise
        finally:
            self.budget.settle(upper, cost)
            self._n_sent -= 1
            if not self._n_sent:
                self.idle.set()
        return reply


def call_identity(model_identity: str, request: Request, repeat: int, fresh: int) -> str:
    """Return the hash of all that determines a reply, under which the call is paid for once."""
    messages = [[message.role, message.content] for message in request.messages]
    return identity_of(
        [model_identity, messages, dict(request.parameters), request.response_format, repeat, fresh]
    )


def cost_of(usage: Usage | None, price: Price | None) -> float | None:
    """Return US dollars; None when the price is unknown or the tokens are only our own estimate."""
    if price is None:
        return None
    if price.input_per_mtok == 0 and price.output_per_mtok == 0:
        return 0.0
    if usage is None or usage.estimated:
        return None
    return (usage.input_tokens * price.input_per_mtok + usage.output_tokens * price.output_per_mtok) / 1e6


def upper_cost(request: Request, tokens: int, price: Price | None) -> float:
    """Return what a request costs at most: twice the estimated input, and all the output it may give."""
    if price is None:
        return 0.0
    output = int(request.parameters.get("max_tokens") or UNSAID_OUTPUT_TOKENS)
    return (2 * tokens * price.input_per_mtok + output * price.output_per_mtok) / 1e6


def _estimated_usage(request: Request, reply: Reply) -> Usage:
    return Usage(
        input_tokens=estimate_input_tokens(request.messages),
        output_tokens=estimate_tokens(reply.text),
        estimated=True,
    )


def _wait_before_retry(error: ModelError, call_id: str, attempt: int) -> float | None:
    """Return seconds to wait, with full jitter drawn from the call's own identity; None when it is final."""
    if not error.retryable:
        return None
    digest = hashlib.sha256(f"{call_id}:{attempt}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    base, ceiling = _BACKOFF_S
    jitter = share * min(ceiling, base * 2.0**attempt)
    if error.retry_after_s is None:
        return jitter
    return error.retry_after_s + jitter if error.retry_after_s <= LONGEST_WAIT_S else None
