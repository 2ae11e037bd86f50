"""What the gates of an experiment say of a finished run, of each candidate and of all together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from llmops.records.base import SCHEMA_VERSION, Record
from llmops.records.comparisons import Flip, Side
from llmops.records.figures import Interval
from llmops.records.runs import DatasetVersion, EvaluatorVersion, Source


class Outcome(StrEnum):
    """What a gate says: also that it cannot say."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Place(Record):
    """Where in a file of the project something stands; line and column from 1, None for the whole file."""

    path: str
    line: int | None = None
    column: int | None = None


class GateResult(Record):
    """What one gate of an experiment says of one candidate: the fields of statistics.md, section 1.3.11.

    gate: as people write it, in one line. place: of the gate in the experiment's file. reason: in words.
    blocks: whether it decides; those that inform are shown and decide nothing.
    limit: of a floor or ceiling; margin: of a comparison, in units of the score, or a share on the scale of ratios.
    n: cases judged; n_missing: left out because a score is missing; n_clusters: None where each case is its own.
    repeats: runs of each case on the baseline's side and the candidate's.
    estimate, interval: of what is judged, candidate less (or over) baseline, or the figure itself.
    p_pass, p_worse: that what is wished for, and what is feared, is no accident; p_worse_adjusted: Holm's.
    q_worse: of what no gate asks, the share of false alarms among all that look as much worse (Benjamini-Hochberg).
    smallest_margin, smallest_regression: what such a gate could have passed, and proved, four times in five.
    look, n_looks: of a sequential gate, this one and those planned; None where there is one look.
    improved, regressed: the cases that changed, largest change first.
    """

    metric: str
    gate: str
    place: Place | None = None
    slice: str | None = None
    outcome: Outcome
    reason: str
    blocks: bool = True
    method: str | None = None
    alpha: float | None = None
    limit: float | None = None
    margin: float | None = None
    scale: Literal["difference", "ratio"] | None = None
    lower_is_better: bool = False
    baseline: float | None = None
    candidate: float | None = None
    estimate: float | None = None
    interval: Interval | None = None
    n: int = 0
    n_missing: int = 0
    n_clusters: int | None = None
    effective_clusters: float | None = None
    repeats: tuple[int, int] = (1, 1)
    p_pass: float | None = None
    p_worse: float | None = None
    p_worse_adjusted: float | None = None
    q_worse: float | None = None
    smallest_margin: float | None = None
    smallest_regression: float | None = None
    n_needed: int | None = None
    look: int | None = None
    n_looks: int | None = None
    improved: tuple[Flip, ...] = ()
    regressed: tuple[Flip, ...] = ()


class CandidateVerdict(Record):
    """What all gates together say of one candidate.

    baseline: None where no gate compares. baseline_age_s: since the oldest reply of the baseline that was used again.
    changed: where the candidate's files differ from the baseline's, most telling first: annotations stand there.
    n_history: runs of the baseline, that of this run included, with whose mean bounded scores were compared; 0 where
    one run stands beside the other. n_stale: earlier ones left out, because the baseline is not what it was then.
    n_flaky: cases that the baseline's history shows to be flaky, on which the candidate ran `flaky_repeats` times.
    ungated: scores, by slice too, that no gate asks about: they decide nothing.
    """

    candidate: Side
    baseline: Side | None = None
    baseline_age_s: float | None = None
    outcome: Outcome
    gates: tuple[GateResult, ...] = ()
    changed: tuple[Place, ...] = ()
    n_history: int = 0
    n_stale: int = 0
    n_flaky: int = 0
    flaky_repeats: int = 1
    ungated: tuple[GateResult, ...] = ()


class Looks(Record):
    """How often this candidate has been judged against this baseline: pressing the button again is no new evidence.

    n_verdicts: verdicts on the same identities, this one included. n_fresh: times it was paid for anew.
    n_held_out: runs of any candidate judged on this held-out split, None where the split is not held out.
    """

    n_verdicts: int = 1
    n_fresh: int = 0
    n_held_out: int | None = None


class Verdict(Record):
    """The verdict on one experiment; exit code, terminal, JUnit, comment, annotations, MLflow and page follow from it.

    id: the hash of all below that determines it. outcome: fail if a candidate fails, else inconclusive if one is.
    blocks: whether it stops a merge or a promotion, by the policy `on_inconclusive`.
    run_id: of the run judged; baseline_run_id: where that is another.
    evaluators: the versions that judged, the same on both sides. policy: what decided besides the gates, by name.
    replayed: identity of the recordings that answered in place of models; such a verdict never promotes.
    quarantined: cases that did not count, because they are measured to be flaky.
    warnings: what makes the figures less sure than they look, such as cases that seem to belong together.
    n_calls, cost_usd: what this verdict cost; n_calls_saved: of a sequential gate, those it did not need.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    created_at: datetime
    experiment: str
    place: Place
    outcome: Outcome
    reason: str
    blocks: bool
    run_id: str
    baseline_run_id: str | None = None
    dataset: DatasetVersion
    evaluators: tuple[EvaluatorVersion, ...] = ()
    candidates: tuple[CandidateVerdict, ...] = ()
    policy: Mapping[str, str] = Field(default_factory=dict)
    looks: Looks = Looks()
    replayed: str | None = None
    quarantined: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    source: Source = Source()
    n_calls: int = 0
    n_calls_saved: int | None = None
    cost_usd: float | None = 0.0
    link: str | None = None
