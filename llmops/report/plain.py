"""A verdict for machines: the record itself as JSON, and the tags of its runs in MLflow."""

from __future__ import annotations

import json

from llmops.definitions.base import identity_of
from llmops.records import CandidateVerdict, Verdict
from llmops.report import texts
from llmops.report.markdown import NOTE_LIMIT
from llmops.report.verdict_texts import gate_texts, verdict_title


def verdict_json(verdict: Verdict) -> str:
    """Return the record as ASCII JSON that a CI runner finds no command in; `Verdict.model_validate_json` reads it."""
    text = json.dumps(
        verdict.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False
    )
    return text.replace("##[", "##\\u005b") + "\n"


def verdict_tags(verdict: Verdict, candidate: CandidateVerdict | None = None) -> dict[str, str]:
    """Return the tags of the run, or of one candidate's run under it; none is longer than MLflow keeps.

    The note beside them is `verdict_note`; the run of the baseline is tagged by who knows its id in MLflow.
    """
    outcome = verdict.outcome if candidate is None else candidate.outcome
    candidates = verdict.candidates if candidate is None else (candidate,)
    gates = [gate_texts(gate).sentence for one in candidates for gate in one.gates]
    return {
        "llmops.gate": outcome.value,
        "llmops.gate_blocks": str(verdict.blocks).lower(),
        "llmops.gate_says": _short(f"{verdict_title(verdict)}: {texts.one_line(verdict.reason)}"),
        "llmops.gates": _short("\n".join(gates)),
        "llmops.policy_sha256": policy_identity(verdict),
        "llmops.verdict": _short(verdict.id),
    }


def policy_identity(verdict: Verdict) -> str:
    """Return the hash of all that decided: the gates as they are written, and the policy beside them."""
    gates = sorted({(gate.gate, gate.blocks) for one in verdict.candidates for gate in one.gates})
    return identity_of({"gates": [list(gate) for gate in gates], "policy": dict(verdict.policy)})


def _short(text: str) -> str:
    return text if len(text) <= NOTE_LIMIT else f"{text[: NOTE_LIMIT - 4]} ..."
