"""Every exception llmops raises, in one tree. A leaf exists where a caller would act differently.

LlmopsError
    UsageError          a command was asked for something that does not exist
    DefinitionError     files are wrong: carries findings with path, line, and what would be right
        RowsError                                                 some rows of a data file; the others were read
    ModelError          no usable reply: carries model, request id, retry_after_s
        RateLimitError, ModelTimeoutError, UnavailableError       worth another try
        RefusalError, ReplyError, RequestError                    not worth another try
        RecordingError                                            a replay lacks it: record it where there is a key
        OutcomeUnknownError                                       it may have been carried out: not sent again
        AccessError                                               key, quota or deployment: stop asking this model
            ParkedError                                           it is busy or down for longer than this run waits
    EvidenceError       a promotion has no evidence to stand on
        InconclusiveError                                         it has some, which cannot say
    EvaluatorError      a score could not be worked out
    StepError           a step of a chain could not give its value
        LimitError                                                an agent came to one of its limits; `kind` says which
    StoreError          a record could not be written or read back
        StoreHeldError                                            another runner holds it
    BudgetError         the run would go past its cost, token or time budget
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong in one place of a file; lines and columns count from 1."""

    path: str
    line: int | None
    column: int | None
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" + (f"\n    {self.hint}" if self.hint else "")


class LlmopsError(Exception):
    """Base of every error that llmops raises on purpose; its text is meant for people."""


class UsageError(LlmopsError):
    """A command was asked for something that does not exist or does not fit together."""


class DefinitionError(LlmopsError):
    """One or more files are wrong; `findings` says where and what would be right."""

    def __init__(self, findings: Finding | Iterable[Finding]) -> None:
        self.findings: tuple[Finding, ...] = (findings,) if isinstance(findings, Finding) else tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class RowsError(DefinitionError):
    """Some rows of a data file are wrong, and the others were read.

    n_rows: how many are wrong. n_unlisted: of their findings, how many are only counted, in the last of `findings`.
    """

    def __init__(self, findings: Iterable[Finding], *, n_rows: int, n_unlisted: int = 0) -> None:
        super().__init__(findings)
        self.n_rows = n_rows
        self.n_unlisted = n_unlisted


class ModelError(LlmopsError):
    """A model gave no usable reply.

    retry_after_s: what the service asked us to wait, None when it said nothing.
    sent: whether the request may have reached the service; None when that cannot be known.
    body: what came back, raw and capped, for diagnosis.
    """

    retryable = False
    kind = "error"

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        sent: bool | None = True,
        body: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.sent = sent
        self.body = body


class RateLimitError(ModelError):
    """The service asked us to slow down."""

    retryable = True
    kind = "rate_limit"


class ModelTimeoutError(ModelError):
    """No whole reply came in time; the request may have been carried out and billed."""

    retryable = True
    kind = "timeout"


class UnavailableError(ModelError):
    """The service could not be reached or failed on its side."""

    retryable = True
    kind = "unavailable"


class RefusalError(ModelError):
    """A content filter turned the request down."""

    kind = "filtered"


class ReplyError(ModelError):
    """Something came back that is not a reply: wrong type, cut off, or no choices."""

    kind = "protocol"


class RequestError(ModelError):
    """The service says the request itself is wrong."""

    kind = "request"


class AccessError(ModelError):
    """Key, quota or deployment is refused: asking this model again would not help."""

    kind = "access"


class ParkedError(AccessError):
    """A service asks for more patience than this run has, or is down: not asked again until a later run."""

    kind = "parked"


class RecordingError(ModelError):
    """Recordings alone may answer, and none does; says what was recorded that is nearest."""

    kind = "missing_recording"


class OutcomeUnknownError(ModelError):
    """A request may have been carried out and billed, and the model's `on_unknown` lets nobody send it again."""

    kind = "unknown"


class EvidenceError(LlmopsError):
    """A promotion lacks evidence: there is none, it speaks against it, is too old, or is for something else."""


class InconclusiveError(EvidenceError):
    """The evidence of a promotion is a verdict that cannot say."""


class EvaluatorError(LlmopsError):
    """A score could not be worked out for one output; the score is then absent, never 0."""


class StepError(LlmopsError):
    """A step could not give its value: its template, function or inputs failed."""


class LimitError(StepError):
    """An agent came to a limit before it had an answer. kind: the limit, or `loop` where it went in circles."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StoreError(LlmopsError):
    """A record could not be written or read back."""


class StoreHeldError(StoreError):
    """Another runner holds the store."""


class BudgetError(LlmopsError):
    """Going on would pass the budget of cost, calls or time."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return "did you mean 'x'?" for the closest choice, or None when nothing is close."""
    found = get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"did you mean {found[0]!r}?" if found else None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_error(error: BaseException) -> BaseException:
    """Return the first single error inside a group, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
