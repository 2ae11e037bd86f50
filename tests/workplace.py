"""A throw-away project whose models are a real server on this machine, and what a test does with it.

place = Workplace(tmp_path, server)
place.run()                                   # as `llmops run sort` does, without the command line
place.edit("prompts/sort.prompt.yaml", "Answer", "Reply")
assert place.new_requests() == []
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select as select_rows

from llmops.call.carrying import Result, Settings
from llmops.definitions.workspace import Workspace, load_workspace
from llmops.plan import Plan, plan_experiment, select
from llmops.records import Call, Figure, Row, Run
from llmops.run import run_experiment
from llmops.stores.journal import Journal, open_journal
from llmops.stores.rows import call_of
from llmops.stores.tables import CALLS
from tests.model_server import ModelServer, Received

KEY = "sk-canary/0123+456789="
STORE = "sqlite:///.llmops/store.db"

MODELS = """
models:
  default: &server
    provider: openai
    model: m
    endpoint_env: MODEL_URL
    api_key_env: MODEL_KEY
    price: {input_per_mtok: 1, output_per_mtok: 2}
    limits: {concurrency: 4, attempts: 1, timeout_s: 20}
  other:
    provider: openai
    model: n
    endpoint_env: OTHER_URL
    api_key_env: MODEL_KEY
    price: {input_per_mtok: 1, output_per_mtok: 2}
    limits: {concurrency: 4, attempts: 1, timeout_s: 20}
"""
SORT = """
description: A label for a ticket.
inputs: {ticket: string}
parameters: {max_tokens: 8}
messages:
  - {role: system, content: "Answer with one word only: red, green, blue."}
  - {role: user, content: "{{ ticket }}"}
"""
EXPERIMENT = """
dataset: tickets
variants:
  plain: {prompt: sort}
evaluators: [exact_match]
seed: 3
"""
COLOURS = ("red", "green", "blue")


def case_of(number: int, text: str = "") -> dict[str, Any]:
    """Return a case whose ticket names its answer for two in three, so that scores differ."""
    colour = COLOURS[number % 3]
    ticket = f"ticket {number} is {colour} {text}" if number % 3 else f"ticket {number} {text}"
    return {"id": f"c{number}", "inputs": {"ticket": ticket}, "expected": colour}


def jsonl(cases: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(case) + "\n" for case in cases)


FILES = {
    "llmops.yaml": MODELS.replace("&server", ""),
    "prompts/sort.prompt.yaml": SORT,
    "datasets/tickets.dataset.yaml": "inputs: {ticket: string}\nexpected: {type: string}\n",
    "datasets/tickets.jsonl": jsonl([case_of(number) for number in range(6)]),
    "experiments/sort.experiment.yaml": EXPERIMENT,
}


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Workplace:
    """A project at `root` that asks `server`; `other` is the address of its second model, `url` that of its store."""

    root: Path
    server: ModelServer
    other: str = ""
    url: str = STORE
    _n_seen: int = 0
    _files: dict[str, str] = field(default_factory=lambda: dict(FILES))

    def __post_init__(self) -> None:
        for name, text in self._files.items():
            self.write(name, text)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to ask the server."""
        return {
            "MODEL_URL": self.server.openai_url,
            "OTHER_URL": self.other or self.server.openai_url,
            "MODEL_KEY": KEY,
        }

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a piece of text that stands in a file."""
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        self.write(name, text.replace(old, new))

    def write_cases(self, *cases: dict[str, Any]) -> None:
        self.write("datasets/tickets.jsonl", jsonl(list(cases)))

    def workspace(self) -> Workspace:
        return load_workspace(self.root)

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        with closing(open_journal(self.url, root=self.root)) as journal:
            yield journal

    def plan(self, name: str = "sort", *, fresh: bool = False) -> Plan:
        with self.journal() as journal:
            return plan_experiment(self.workspace(), name, journal, fresh=fresh, now=utc_now())

    def run(self, name: str = "sort", *, fresh: bool = False, **selected: Any) -> Result:
        """Carry out an experiment, or the part of it that `select` makes of the other arguments."""
        workspace = self.workspace()
        settings = Settings(self.environment, utc_now)
        with self.journal() as journal:
            plan = plan_experiment(workspace, name, journal, fresh=fresh, now=utc_now())
            selection = select(plan, **selected)
            with journal.hold(plan.run.id):
                return asyncio.run(run_experiment(workspace, plan, journal, selection, settings))

    def new_requests(self) -> list[Received]:
        """Return what the server has received since this was last asked."""
        found = self.server.received[self._n_seen :]
        self._n_seen += len(found)
        return found

    def rows(self, run: Run) -> list[Row]:
        with self.journal() as journal:
            return list(journal.rows(run.id))


def figure(run: Run, metric: str, variant: str = "plain") -> Figure:
    return run.summary[variant][metric]


def said(received: Received) -> str:
    """Return the last message of a request."""
    return str(received.body["messages"][-1]["content"])


def calls_in(journal: Journal, owner: str | None = None) -> list[Call]:
    """Return all calls that a journal holds, or those last asked for by one owner, in the order they were."""
    query = select_rows(CALLS).order_by(CALLS.c.created_at, CALLS.c.id)
    if owner is not None:
        query = query.where(CALLS.c.owner == owner)
    return [call_of(tuple(row)) for row in journal._rows(query)]
