"""A real git project with a run on it, and verdicts on that run as a gate would leave them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmops.call.carrying import Settings
from llmops.definitions.base import identity_of
from llmops.definitions.workspace import Workspace, load_workspace
from llmops.plan import plan_experiment, select
from llmops.promote import Moved, Order, promote, roll_back
from llmops.records import (
    CandidateVerdict,
    GateResult,
    Outcome,
    Place,
    Run,
    Side,
    Variant,
    Verdict,
)
from llmops.run import run_experiment
from llmops.stores.journal import Journal, open_journal
from tests.workplace import STORE, case_of, jsonl

PROMPT = """
description: A label for a ticket.
inputs: {ticket: string}
messages:
  - {role: system, content: "Answer with one word only: red, green, blue."}
  - {role: user, content: "{{ ticket }}"}
"""
EXPERIMENT = """
dataset: tickets
variants:
  plain: {prompt: sort}
evaluators: [exact_match]
gates: [{metric: exact_match, at_least: 0.2}]
"""
CHAIN = """
inputs: {ticket: string}
steps:
  - {id: label, prompt: sort, with: {ticket: "{{ ticket }}"}}
outputs: "{{ label.output }}"
"""
FILES = {
    "llmops.yaml": "",
    ".gitignore": ".llmops/\nmlflow.db*\n",
    "prompts/sort.prompt.yaml": PROMPT,
    "datasets/tickets.dataset.yaml": "inputs: {ticket: string}\nexpected: {type: string}\n",
    "datasets/tickets.jsonl": jsonl([case_of(number) for number in range(6)]),
    "experiments/sort.experiment.yaml": EXPERIMENT,
}
ANN, BOB = "Ann Author", "Bob"


def verdict_of(run: Run, outcome: Outcome = Outcome.PASS, **changes: Any) -> Verdict:
    """Return a verdict on all candidates of a run. changes: fields of it; `gates` are those of every candidate."""
    gates = changes.pop("gates", (gate_of("exact_match", outcome, limit=0.2),))
    baseline = next((side_of(run, each) for each in run.variants if each.is_baseline), None)
    candidates = tuple(
        CandidateVerdict(candidate=side_of(run, each), baseline=baseline, outcome=outcome, gates=gates)
        for each in run.variants
        if not each.is_baseline
    )
    values: dict[str, Any] = {
        "created_at": utc_now(),
        "experiment": run.experiment,
        "place": Place(path=f"experiments/{run.experiment}.experiment.yaml"),
        "outcome": outcome,
        "reason": f"every gate says {outcome}",
        "blocks": False,
        "run_id": run.id,
        "dataset": run.dataset,
        "evaluators": run.evaluators,
        "candidates": candidates,
        "policy": {"on_inconclusive": "warn"},
    }
    values |= changes
    return Verdict(id=identity_of([run.id, outcome, str(values["created_at"])]), **values)


def gate_of(metric: str, outcome: Outcome = Outcome.PASS, **fields: Any) -> GateResult:
    return GateResult(metric=metric, gate=f"{metric} as asked", outcome=outcome, reason="so it is", **fields)


def side_of(run: Run, variant: Variant) -> Side:
    return Side(run_id=run.id, variant=variant.name, definition=variant.definition, identity=variant.identity)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Scene:
    """A project at `root` in a git repository of its own."""

    root: Path

    def __post_init__(self) -> None:
        for name, text in FILES.items():
            self.write(name, text)
        self.git("init", "-q", "-b", "main")
        self.commit()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def edit(self, old: str, new: str, name: str = "prompts/sort.prompt.yaml") -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    def git(self, *arguments: str, who: str = ANN) -> str:
        names = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in person(who).items()
        }
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "GIT_CONFIG_NOSYSTEM": "1",
            **names,
        }
        command = ["git", "-C", str(self.root), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, who: str = ANN) -> None:
        self.git("add", "-A", who=who)
        self.git("commit", "-qm", "a change", who=who)

    @property
    def releases(self) -> Path:
        return self.root / "experiments/releases.jsonl"

    def workspace(self) -> Workspace:
        return load_workspace(self.root)

    def journal(self) -> Journal:
        return open_journal(STORE, root=self.root)

    def run(self, name: str = "sort", **selected: Any) -> Run:
        """Carry an experiment out on the embedded model, whole or in part."""
        workspace, settings = self.workspace(), Settings({}, utc_now)
        with closing(self.journal()) as journal:
            plan = plan_experiment(workspace, name, journal, now=utc_now())
            with journal.hold(plan.run.id):
                done = run_experiment(workspace, plan, journal, select(plan, **selected), settings)
                return asyncio.run(done).run

    def judge(self, run: Run, outcome: Outcome = Outcome.PASS, **changes: Any) -> Verdict:
        """Store a verdict on a run, as a gate would."""
        verdict = verdict_of(run, outcome, **changes)
        with closing(self.journal()) as journal:
            journal.verdicts.save(verdict)
        return verdict

    def pass_gate(self, name: str = "sort") -> Verdict:
        """Commit what stands there, run it and let it pass."""
        if self.git("status", "--porcelain"):
            self.commit()
        return self.judge(self.run(name))

    def promote(self, alias: str = "production", **options: Any) -> Moved:
        now = options.pop("now", utc_now())
        order = Order(**{"kind": "prompt", "name": "sort", "alias": alias, "approver": BOB, **options})
        with closing(self.journal()) as journal:
            return promote(self.workspace(), journal, order, now=now)

    def roll_back(self, alias: str = "production", **options: Any) -> Moved:
        order = Order(
            **{
                "kind": "prompt",
                "name": "sort",
                "alias": alias,
                "approver": BOB,
                "reason": "it broke",
                **options,
            }
        )
        return roll_back(self.workspace(), order, now=utc_now())


def person(name: str) -> dict[str, str]:
    return {"NAME": name, "EMAIL": f"{name.split(maxsplit=1)[0].lower()}@example.invalid"}
