"""The one path of every model call: request -> reply, paid for once.

Reads the journal for a reply already paid for; otherwise waits for the deployment's limits, sends, retries what
is worth it, and writes down what came. Prompts, judges and embedders all come through here.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from llmops.call.deployments import Deployment
from llmops.call.money import Budget, cost_of, estimated_usage, upper_cost
from llmops.call.patience import LONGEST_WAIT_S, Patience
from llmops.call.sharing import sharing
from llmops.call.tries import Tries, is_unknown, outcome_unknown
from llmops.definitions.base import identity_of
from llmops.errors import (
    AccessError,
    BudgetError,
    LlmopsError,
    ModelError,
    ModelTimeoutError,
    ParkedError,
    RateLimitError,
    RecordingError,
    UnavailableError,
)
from llmops.models.hints import Listening
from llmops.models.tokens import estimate_request_tokens
from llmops.records import (
    AnyReply,
    AnyRequest,
    Call,
    CallState,
    EmbeddingRequest,
    Embeddings,
    ErrorInfo,
    HttpReply,
    HttpRequest,
    Message,
    Repeat,
    Reply,
    Request,
    Spent,
)

if TYPE_CHECKING:
    from llmops.call.limits import Turn
    from llmops.call.replay import Replay
    from llmops.models.http import HttpHost
    from llmops.stores.journal import Journal
    from llmops.stores.writer import Writer

FOREVER_S = 10 * 365 * 86_400.0
"""A calendar has an end, and what a service may ask for has none."""

_BACKOFF_S = (0.5, 20.0)

_DOWN = (AccessError, RateLimitError, ModelTimeoutError, UnavailableError, RecordingError)
"""After these a model's fallback is asked; what a model says of a request, the next would say too."""

Asked = AnyRequest
Said = AnyReply
R = TypeVar("R", bound=Said)


class Stopping(LlmopsError):
    """The run is ending: what has been sent may still come home, and nothing more is sent."""


class Log(Protocol):
    """Where calls are written down: the journal's writer."""

    async def intend(self, call: Call) -> Call | None:
        """Return the call if it has been answered, or may have been; else None, once it is noted as to be sent."""

    async def still_ours(self, call: Call) -> Call | None:
        """Return the call if another runner has had it answered since; otherwise it may be sent now."""

    def record_call(self, call: Call, spent: Spent | None = None) -> None:
        """Note what came of a call, and what it came to since the last try was recorded."""

    async def record_try(self, call: Call, spent: Spent) -> None:
        """Note what came of one try before the next is sent."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """A reply with what it cost. reused: it was in the journal and nothing was sent."""

    call_id: str
    reply: R
    cost_usd: float | None
    reused: bool


@dataclass
class Caller:
    """Asks models for a run. sleep and now are parameters so that waiting can be watched.

    idle: set while no request is in flight.
    """

    deployments: Mapping[str, Deployment]
    log: Log
    budget: Budget
    utc_now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.monotonic
    n_reused: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    _n_sent: int = 0
    _giving_way: list[asyncio.Future[None]] = field(default_factory=list)
    _stopping: bool = False
    _ends_at: float | None = None
    _in_flight: dict[str, asyncio.Future[Answer[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.idle.set()

    def end_after(self, seconds: float) -> None:
        """Wait for no service that asks for more than what is left of so many seconds from now."""
        self._ends_at = self.now() + seconds

    def stop(self) -> None:
        """Send nothing more; whoever would gets Stopping instead."""
        self._stopping = True

    async def ask(self, model: str, request: Request, *, repeat: Repeat = 0, fresh: int = 0) -> Answer[Reply]:
        """Return the reply to a request, from the journal or from the model.

        repeat, fresh: part of the call's identity, so that repeats stay independent of one another.

        Raises the leaves of ModelError when there is none, and BudgetError before anything is sent.
        """
        return cast("Answer[Reply]", await self._answer(model, request, repeat, fresh))

    async def ask_first(
        self, models: Sequence[str], request: Request, *, repeat: Repeat = 0, fresh: int = 0
    ) -> tuple[str, Answer[Reply]]:
        """Return the first of these models that answers, with its answer; the rest as in `ask`.

        One that another can stand in for is not waited for while it is left alone.
        """
        down = []
        for model in models:
            try:
                is_replaceable = model != models[-1]
                answer = await self._answer(model, request, repeat, fresh, is_replaceable=is_replaceable)
                return model, cast("Answer[Reply]", answer)
            except _DOWN as error:
                down.append(error)
        raise down[0]

    async def embed(
        self, model: str, request: EmbeddingRequest, *, repeat: Repeat = 0, fresh: int = 0
    ) -> Answer[Embeddings]:
        """Return the vectors of texts or images; the rest as in `ask`."""
        return cast("Answer[Embeddings]", await self._answer(model, request, repeat, fresh))

    async def fetch(
        self, host: str, request: HttpRequest, *, repeat: Repeat = 0, fresh: int = 0
    ) -> Answer[HttpReply]:
        """Return what a host that is no model answers; the rest as in `ask`."""
        return cast("Answer[HttpReply]", await self._answer(host, request, repeat, fresh))

    async def _answer(
        self, model: str, request: Asked, repeat: Repeat, fresh: int, *, is_replaceable: bool = False
    ) -> Answer[Any]:
        """Ask once for all who want the same at the same time."""
        deployment = self.deployments[model]
        call_id = call_identity(deployment.version.identity, request, repeat, fresh)
        while (shared := self._in_flight.get(call_id)) is not None:
            await asyncio.wait({shared})
            if not shared.cancelled():  # else whoever asked for it was: then we ask
                return shared.result()
        future: asyncio.Future[Answer[Any]] = asyncio.get_running_loop().create_future()
        self._in_flight[call_id] = future
        try:
            answer = await self._ask_once(deployment, call_id, request, is_replaceable)
        except BaseException as error:
            future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            future.exception() if not future.cancelled() else None  # nobody may be waiting for it
            raise
        finally:
            del self._in_flight[call_id]
        future.set_result(answer)
        return answer

    async def _ask_once(
        self, deployment: Deployment, call_id: str, request: Asked, is_replaceable: bool
    ) -> Answer[Any]:
        tokens, price = estimate_request_tokens(request), deployment.price
        call = Call(
            id=call_id,
            model=deployment.version.name,
            model_identity=deployment.version.identity,
            request=request,
            state=CallState.SENT,
            upper_usd=None if price is None else upper_cost(request, tokens, price),
            created_at=self.utc_now(),
        )
        known = await self.log.intend(call)
        if known is not None and known.reply is not None:
            self.n_reused += 1
            return Answer(known.id, known.reply, known.cost_usd, reused=True)
        return await self._send_and_record(deployment, Tries(call, tokens, price, known, is_replaceable))

    async def _send_and_record(self, deployment: Deployment, tries: Tries) -> Answer[Any]:
        call = tries.call
        try:
            reply = await self._send(deployment, tries)
        except ModelError as error:
            info = ErrorInfo(kind=error.kind, message=str(error))
            state = CallState.UNKNOWN if tries.in_doubt else CallState.FAILED
            self._note(tries, state, error=info, body=error.body)
            raise
        except (BudgetError, Stopping, asyncio.CancelledError):
            self._note(tries, tries.state)
            raise
        if reply.usage is None:
            reply = reply.model_copy(update={"usage": estimated_usage(call.request, reply)})
        cost = cost_of(reply.usage, deployment.price)
        self._note(tries, CallState.ANSWERED, reply=reply, cost_usd=cost)
        await self._give_way()
        return Answer(call.id, reply, cost, reused=False)

    async def _give_way(self) -> None:
        """Let those send first whom answers have just made room for: what came is written down, the rest can wait."""
        loop = asyncio.get_running_loop()
        if not self._giving_way:
            loop.call_soon(self._go_on)
        self._giving_way.append(after := loop.create_future())
        await after

    def _go_on(self) -> None:
        waiting, self._giving_way = self._giving_way, []
        for after in waiting:
            if not after.done():  # else whoever waited was cancelled
                after.set_result(None)

    def _note(self, tries: Tries, state: CallState, **changes: object) -> None:
        call = tries.call_as(state, self.utc_now(), **changes)
        self.log.record_call(call, tries.taken())

    async def _send(self, deployment: Deployment, tries: Tries) -> Said:
        """The one retry loop. Refusals wait with all who ask this deployment; failures by themselves, full jitter."""
        patience = Patience(deployment.definition.limits.attempts)
        while True:
            try:
                if tries.in_doubt and (found := await self._resolve(deployment, tries)) is not None:
                    return found
                return await self._send_in_turn(deployment, tries)
            except ModelError as error:
                is_last = patience.is_over(error, n_answered=deployment.n_answered, now=self.now())
                policy = _policy(deployment, tries.call.request)
                if is_unknown(error) and (policy == "fail" or (policy == "reconcile" and is_last)):
                    raise outcome_unknown(tries.call, error, policy) from error
                if is_last or not tries.is_worth_another(error):
                    raise
                if deployment.stopped is not None:
                    raise deployment.stopped from error
                await self.log.record_try(tries.call_as(CallState.SENT, self.utc_now()), tries.taken())
                if not isinstance(error, RateLimitError):
                    await self.sleep(_jitter_s(tries.call.id, patience.n_failed))

    async def _resolve(self, deployment: Deployment, tries: Tries) -> Reply | None:
        """Return the answer that the service has of a call in doubt; None where it may be sent again.

        Raises OutcomeUnknownError where it may not, or where nobody can say.
        """
        call, definition = tries.call, deployment.definition
        policy = _policy(deployment, call.request)
        if policy == "retry":
            return None
        if self._stopping:
            raise Stopping("the run is ending")
        if policy == "fail" or not isinstance(call.request, Request):
            raise outcome_unknown(call, None, policy)
        try:
            reply = await deployment.model.find(
                call.request, call_id=call.id, timeout_s=definition.limits.timeout_s
            )
        except ModelError as error:
            raise outcome_unknown(call, error, policy) from error
        if reply is not None:
            spent = tries.found(reply)
            self.budget.add(spent)
            tries.note(spent)
        return reply

    async def _send_in_turn(self, deployment: Deployment, tries: Tries) -> Said:
        if not deployment.proven:
            async with deployment.probe:
                if not deployment.proven:
                    try:
                        return await self._send_once(deployment, tries)
                    finally:
                        deployment.proven = True
        return await self._send_once(deployment, tries)

    async def _send_once(self, deployment: Deployment, tries: Tries) -> Said:
        def check() -> None:
            if deployment.stopped is not None:
                raise deployment.stopped
            if self._stopping:
                raise Stopping("the run is ending")
            if tries.is_replaceable and deployment.limiter.is_left_alone:
                raise ParkedError("it is left alone for now", model=deployment.version.name, sent=False)

        tokens = deployment.tokens_at_most(tries.call.request, tries.tokens)
        async with deployment.limiter.slot(tokens, check) as turn:
            known = await self.log.still_ours(tries.call)
            if known is not None and known.reply is not None:
                return known.reply
            check()
            self.budget.reserve(tries.upper_usd)
            spent = tries.lost()  # unless something comes back
            self._n_sent += 1
            self.idle.clear()
            try:
                reply = await self._heard(deployment, tries.call, turn)
                spent = tries.answered(reply)
            except ModelError as error:
                spent = tries.failed(error)
                raise
            finally:
                self.budget.settle(tries.upper_usd, spent)
                tries.note(spent)
                self._n_sent -= 1
                if not self._n_sent:
                    self.idle.set()
            return reply

    async def _heard(self, deployment: Deployment, call: Call, turn: Turn) -> Said:
        """Return the reply to one request, and let its deployment learn from whatever comes."""
        with Listening() as heard:
            try:
                reply = await _sent(deployment, call)
            except ModelError as error:
                self._note_failure(deployment, turn, error)
                raise
            else:
                deployment.note_answer(turn, reply.usage)
                return reply
            finally:
                deployment.limiter.hear(turn, heard.hint)

    def _note_failure(self, deployment: Deployment, turn: Turn, error: ModelError) -> None:
        left_s = LONGEST_WAIT_S if self._ends_at is None else max(0.0, self._ends_at - self.now())
        asked_s = error.retry_after_s
        if error.retryable and asked_s is not None and asked_s > left_s:
            back_at = self.utc_now() + timedelta(seconds=min(asked_s, FOREVER_S))
            deployment.park(
                f"model {deployment.version.name!r} asks us to wait until {back_at:%Y-%m-%d %H:%M:%S} UTC, "
                "longer than this run waits"
            )
        deployment.note_failure(turn, error, patience_s=min(left_s, LONGEST_WAIT_S))


async def _sent(deployment: Deployment, call: Call) -> Said:
    model, timeout_s = deployment.model, deployment.definition.limits.timeout_s
    if isinstance(call.request, EmbeddingRequest):
        return await model.embed(call.request, call_id=call.id, timeout_s=timeout_s)
    if isinstance(call.request, HttpRequest):
        return await cast("HttpHost", model).fetch(call.request, call_id=call.id)
    return await model.complete(call.request, call_id=call.id, timeout_s=timeout_s)


def _policy(deployment: Deployment, request: Asked) -> str:
    """Return what is done about a request of which nobody knows what became of it."""
    if isinstance(request, HttpRequest):
        return "retry" if request.is_repeatable else "fail"
    return deployment.definition.on_unknown


def call_identity(model_identity: str, request: Asked, repeat: Repeat, fresh: int) -> str:
    """Return the hash of all that determines a reply, under which the call is paid for once."""
    if isinstance(request, HttpRequest):
        operation = request.model_dump(mode="json", exclude_defaults=True, exclude={"timeout_s"})
        return identity_of([model_identity, ["http", operation], repeat, fresh])
    if isinstance(request, EmbeddingRequest):
        asked: list[Any] = ["embeddings", request.model_dump(mode="json", exclude_none=True)]
        return identity_of([model_identity, asked, repeat, fresh])
    messages = [_meaning(message) for message in request.messages]
    asked = [messages, dict(request.parameters), request.response_format]
    if request.tools:
        asked.append([tool.model_dump(mode="json") for tool in request.tools])
    return identity_of([model_identity, *asked, repeat, fresh])


def _meaning(message: Message) -> list[Any]:
    """What of a message counts; a message of text alone hashes as it always has."""
    if isinstance(message.content, str) and message.role != "tool" and not message.tool_calls:
        return [message.role, message.content]
    return [message.role, message.model_dump(mode="json", exclude={"role"}, exclude_defaults=True)]


@asynccontextmanager
async def open_caller(
    deployments: Mapping[str, Deployment],
    journal: Journal,
    budget: Budget,
    utc_now: Callable[[], datetime],
    replay: Replay | None = None,
) -> AsyncIterator[tuple[Caller, Writer]]:
    """Give what asks the models and what writes it down, and close both in the end.

    replay: what answers in place of models.
    """
    from llmops.call.replay import ReplayLog
    from llmops.stores.writer import Writer  # SQL is for those who call, not for those who check

    limiters = {deployment.version.identity: deployment.limiter for deployment in deployments.values()}
    async with Writer(journal) as writer, sharing({} if replay else limiters, journal):
        try:
            log: Log = writer if replay is None else ReplayLog(writer, replay, deployments, utc_now)
            yield Caller(deployments, log, budget, utc_now), writer
        finally:
            for deployment in deployments.values():
                await deployment.model.close()


def _jitter_s(call_id: str, attempt: int) -> float:
    """Return seconds to wait after a failure, with full jitter drawn from the call's own identity."""
    digest = hashlib.sha256(f"{call_id}:{attempt}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    base, ceiling = _BACKOFF_S
    return share * min(ceiling, base * 2.0**attempt)
