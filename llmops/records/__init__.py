"""What a run leaves behind; the modules stand in the order in which it comes to be.

    calls          a request is answered by a reply, and the two are journalled as a call
    cases          the steps of a chain leave spans, a case gives an output, and evaluators give it scores
    figures        the scores of all cases add up to figures
    comparisons    two variants give a comparison
    runs           all of that together is a run
    verdicts       and the gates of its experiment give a verdict on it

Records hold facts and survive a round trip through JSON and every store unchanged.
"""

from __future__ import annotations

from llmops.records.base import REPLAYED, SCHEMA_VERSION, Record
from llmops.records.calls import (
    FAILED,
    NOT_YET,
    NOTHING,
    AnyReply,
    AnyRequest,
    Call,
    CallState,
    EmbeddingRequest,
    Embeddings,
    ErrorInfo,
    HttpReply,
    HttpRequest,
    ImagePart,
    Message,
    ModelInfo,
    Part,
    Reply,
    Request,
    Spent,
    Status,
    TextPart,
    Tool,
    ToolCall,
    Usage,
    reply_kind,
)
from llmops.records.cases import (
    ANEW,
    CaseNumbers,
    Output,
    OutputNumbers,
    Repeat,
    Row,
    RowNumbers,
    Score,
    ScoreNumbers,
    Span,
    Verb,
    repeat_of,
    sampled,
)
from llmops.records.comparisons import Comparison, Effect, Flip, Side
from llmops.records.figures import Blame, Figure, Interval, StepBlame
from llmops.records.runs import (
    DatasetVersion,
    EvaluatorVersion,
    ModelVersion,
    Run,
    RunStatus,
    Source,
    StepVersion,
    Variant,
)
from llmops.records.verdicts import CandidateVerdict, GateResult, Looks, Outcome, Place, Verdict

__all__ = [
    "ANEW",
    "FAILED",
    "NOTHING",
    "NOT_YET",
    "REPLAYED",
    "SCHEMA_VERSION",
    "AnyReply",
    "AnyRequest",
    "Blame",
    "Call",
    "CallState",
    "CandidateVerdict",
    "CaseNumbers",
    "Comparison",
    "DatasetVersion",
    "Effect",
    "EmbeddingRequest",
    "Embeddings",
    "ErrorInfo",
    "EvaluatorVersion",
    "Figure",
    "Flip",
    "GateResult",
    "HttpReply",
    "HttpRequest",
    "ImagePart",
    "Interval",
    "Looks",
    "Message",
    "ModelInfo",
    "ModelVersion",
    "Outcome",
    "Output",
    "OutputNumbers",
    "Part",
    "Place",
    "Record",
    "Repeat",
    "Reply",
    "Request",
    "Row",
    "RowNumbers",
    "Run",
    "RunStatus",
    "Score",
    "ScoreNumbers",
    "Side",
    "Source",
    "Span",
    "Spent",
    "Status",
    "StepBlame",
    "StepVersion",
    "TextPart",
    "Tool",
    "ToolCall",
    "Usage",
    "Variant",
    "Verb",
    "Verdict",
    "repeat_of",
    "reply_kind",
    "sampled",
]
