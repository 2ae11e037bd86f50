"""What MLflow is shown of single cases: which of them, and of each its steps, scores and expected answer.

Plain values, bounded in size and free of what no database takes; `mlflow` writes them. The whole of every
row lies beside them as a file.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import short
from llmops.definitions.images import without_images
from llmops.records import FAILED, EvaluatorVersion, Output, Request, Row, Run, Score, Span, Status
from llmops.stores.tracking import shorten, storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmops.records import Call

MAX_CASES = 1_000
"""MLflow's comparison loads so many of a run, and says nothing of the others."""

ROWS_FILE = "rows.jsonl"
MAX_PREVIEW = 1_000  # the width of MLflow's column
MAX_TEXT = 10_000
MAX_VALUE = 50_000
MAX_ID = 50
_ANSWERED = {Status.OK, Status.TRUNCATED}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a case. parent: place of the step above it, None for the case itself; times in ns."""

    name: str
    kind: str
    parent: int | None
    start_ns: int
    end_ns: int
    inputs: Any
    output: Any
    error: str | None = None
    model: str | None = None
    provider: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """What is said of a case: a score with its reason, or the expected answer (`source` None).

    by_judge: a language model said it.
    """

    name: str
    value: Any
    source: str | None = None
    reason: str | None = None
    error: str | None = None
    by_judge: bool = False


@dataclass(frozen=True, slots=True)
class CaseTrace:
    """All that is shown of one cell; its first step is the case itself.

    key: 128 bits that change whenever anything shown changes, so that what is there need not be read to know
    whether it is still true.
    """

    key: int
    case_id: str
    name: str
    failed: bool
    request: str
    response: str
    steps: tuple[Step, ...]
    marks: tuple[Mark, ...]
    labels: Mapping[str, str]
    size: int


# --- which cases ------------------------------------------------------------------------------------------


class Choice:
    """Takes the rows of a run case by case and chooses those worth a look; all variants show the same cases.

    First those with an error, without a score, or judged otherwise than in the baseline; then those short of
    the full score; then the rest: each in the run's order. baselines: the baseline of each candidate.
    """

    def __init__(self, run: Run, baselines: Mapping[str, str], limit: int = MAX_CASES) -> None:
        self._limit = limit
        self._best = {version.name: version.high for version in run.evaluators}
        self._baselines = baselines
        self._heap: list[tuple[int, int, tuple[str, int]]] = []
        self._whole = {
            version.name for version in run.evaluators if (version.low, version.high) == (0.0, 1.0)
        }
        self._n = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Take in the rows of all variants for one case and repeat."""
        self._n += 1
        entry = (-self._rank(rows), -self._n, (rows[0].case.id, rows[0].repeat))
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)
        for row in rows:
            self._whole -= {score.evaluator for score in row.scores if score.value not in {0.0, 1.0, None}}

    @property
    def cases(self) -> frozenset[tuple[str, int]]:
        """The chosen cases, by id and repeat."""
        return frozenset(key for _, _, key in self._heap)

    @property
    def yes_or_no(self) -> frozenset[str]:
        """The evaluators that said nothing but 0 and 1 in the whole run."""
        return frozenset(self._whole)

    def _rank(self, rows: Sequence[Row]) -> int:
        if any(map(_is_broken, rows)):
            return 0
        values = {row.variant: [score.value for score in row.scores] for row in rows}
        if any(name in values and values[name] != values.get(base) for name, base in self._baselines.items()):
            return 0
        return 1 if any(self._is_short(score) for row in rows for score in row.scores) else 2

    def _is_short(self, score: Score) -> bool:
        best = self._best.get(score.evaluator)
        return best is not None and score.value is not None and score.value < best


def _is_broken(row: Row) -> bool:
    broken = row.output is not None and row.output.status in FAILED
    return broken or any(score.value is None for score in row.scores)


# --- one case ---------------------------------------------------------------------------------------------


class Teller:
    """Turns the rows of one run into what is shown of them.

    call_of: finds the call behind a span, for the messages that the model got. yes_or_no: evaluators whose
    scores are shown as such, which is what MLflow counts as passed and failed.
    """

    def __init__(
        self, run: Run, *, call_of: Callable[[str], Call | None], yes_or_no: Iterable[str] = ()
    ) -> None:
        self._run = run
        self._call_of = call_of
        self._yes_or_no = frozenset(yes_or_no)
        self._sources = {version.identity: _source(version) for version in run.evaluators}
        self._judges = {version.identity for version in run.evaluators if is_judge(version)}
        self._blame = {name: blame.by_case() for name, blame in run.blame.items()}
        self._variants = {variant.name: variant for variant in run.variants}

    def tell(self, row: Row) -> CaseTrace | None:
        """Return what is shown of a row, None while it has no output."""
        output = row.output
        if output is None:
            return None
        steps = self._steps(row, output)
        marks = tuple(self._marks(row))
        labels = self._labels(row)
        blame = [labels["blame"]] if "blame" in labels else []  # follows from other repeats too
        plain = json.dumps([_fields(step) for step in steps] + [_fields(mark) for mark in marks] + blame)
        place = json.dumps(
            [self._run.id, self._run.created_at.isoformat(), row.variant, row.repeat, output.cell_id]
        )
        digest = hashlib.sha256(f"{place}{plain}".encode()).digest()
        request = json.dumps(steps[0].inputs, ensure_ascii=False)
        response = output.error.message if output.error is not None else _as_text(output.value)
        return CaseTrace(
            key=int.from_bytes(digest[:16], "big") or 1,
            case_id=shorten(row.case.id, MAX_ID, whole=ROWS_FILE),
            name=self._variants[row.variant].definition.rpartition("/")[2],
            failed=steps[0].error is not None,
            request=shorten(request, MAX_PREVIEW, whole=ROWS_FILE),
            response=shorten(response, MAX_PREVIEW, whole=ROWS_FILE),
            steps=steps,
            marks=marks,
            labels=labels,
            size=len(plain),
        )

    def _labels(self, row: Row) -> dict[str, str]:
        found = {
            "case_id": row.case.id,
            "slice": row.case.slice,
            "repeat": str(row.repeat) if self._run.repeats > 1 else None,
            "blame": self._blame.get(row.variant, {}).get(row.case.id),
        }
        return {name: shorten(text, MAX_PREVIEW, whole=ROWS_FILE) for name, text in found.items() if text}

    def _steps(self, row: Row, output: Output) -> tuple[Step, ...]:
        took_s = max([output.latency_s or 0.0] + [span.start_s + span.duration_s for span in output.spans])
        start = output.created_at - timedelta(seconds=took_s)
        start_ns = int(start.timestamp() * 1_000_000) * 1_000
        # MLflow pairs the cases of two runs by their requests: the id keeps equal inputs apart.
        inputs: dict[str, Any] = {"case_id": row.case.id}
        if self._run.repeats > 1:
            inputs["repeat"] = row.repeat
        case = Step(
            name=shorten(row.case.id, MAX_TEXT, whole=ROWS_FILE),
            kind="case",
            parent=None,
            start_ns=start_ns,
            end_ns=start_ns + _ns(took_s),
            inputs=bounded({**inputs, **row.case.inputs}),
            output=bounded(output.value),
            error=_error_text(output.status, output.error.message if output.error else None),
        )
        places = {span.index: place for place, span in enumerate(output.spans, 1)}
        return (case, *(self._step(row, span, start_ns, places) for span in output.spans))

    def _step(self, row: Row, span: Span, start_ns: int, places: Mapping[int, int]) -> Step:
        call = self._call_of(span.call_id) if span.call_id is not None else None
        extra = {"ttft_s": span.ttft_s, "tpot_s": span.tpot_s, "call_id": span.call_id}
        inputs: Any = span.inputs
        if call is not None and isinstance(call.request, Request):
            extra["inputs"] = bounded(span.inputs)
            messages = [message.model_dump(exclude_defaults=True) for message in call.request.messages]
            inputs = {"messages": messages, **call.request.parameters}
        begin = start_ns + _ns(span.start_s)
        providers = {model.name: model.provider for model in self._variants[row.variant].models}
        return Step(
            name=storable(span.name),
            kind=span.kind,
            parent=0 if span.parent is None else places.get(span.parent, 0),
            start_ns=begin,
            end_ns=begin + _ns(span.duration_s),
            inputs=bounded(inputs),
            output=bounded(span.output),
            error=_error_text(span.status, span.error.message if span.error else None),
            model=span.model,
            provider=providers.get(span.model or ""),
            input_tokens=span.usage.input_tokens if span.usage else None,
            output_tokens=span.usage.output_tokens if span.usage else None,
            cost_usd=span.cost_usd,
            extra={key: value for key, value in extra.items() if value is not None},
        )

    def _marks(self, row: Row) -> Iterable[Mark]:
        for score in row.scores:
            source = self._sources[score.evaluator_identity]
            by_judge = score.evaluator_identity in self._judges
            if score.value is None:
                why = shorten(score.error or "no score", MAX_TEXT, whole=ROWS_FILE)
                yield Mark(score.evaluator, None, source, error=why, by_judge=by_judge)
                continue
            value: Any = bool(score.value) if score.evaluator in self._yes_or_no else score.value
            yield Mark(score.evaluator, value, source, reason=_reason(score), by_judge=by_judge)
            for part, number in score.parts.items():
                yield Mark(f"{score.evaluator}.{storable(part)}", number, source, by_judge=by_judge)
        if row.case.expected is not None:
            yield Mark("expected", bounded(row.case.expected))


def is_judge(version: EvaluatorVersion) -> bool:
    """Say whether an evaluator is a language model's judgement by a rubric."""
    return bool(version.prompts) and all(model.provider != "embedded" for model in version.models)


def _source(version: EvaluatorVersion) -> str:
    """What MLflow shows as the source of a score: of a judge, its model too."""
    name = f"{version.name}@{short(version.identity)}"
    return "/".join([*(model.model for model in version.models if is_judge(version)), name])


def _reason(score: Score) -> str | None:
    labels = None
    if score.label is not None or score.truth is not None:
        labels = f"label: {score.label} · expected: {score.truth}"
    parts = [text for text in (score.rationale, labels) if text]
    return shorten(" · ".join(parts), MAX_TEXT, whole=ROWS_FILE) if parts else None


def _error_text(status: Status, message: str | None) -> str | None:
    if status in _ANSWERED and message is None:
        return None
    return shorten(f"{status}: {message or 'no more is known'}", MAX_TEXT, whole=ROWS_FILE)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fields(record: Step | Mark) -> list[Any]:
    return [getattr(record, name) for name in record.__slots__]


def bounded(value: Any) -> Any:
    """Return a JSON value that every database takes, long texts and what is long in all shortened visibly."""
    try:
        plain = _bounded(without_images(value))
        text = json.dumps(plain, ensure_ascii=False)
    except RecursionError:
        return f"[nested too deeply to be shown; whole in {ROWS_FILE}]"
    return plain if len(text) <= MAX_VALUE else shorten(text, MAX_TEXT, whole=ROWS_FILE)


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return shorten(value, MAX_TEXT, whole=ROWS_FILE)
    if isinstance(value, Mapping):
        return {storable(str(key)): _bounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(item) for item in value]
    return value
