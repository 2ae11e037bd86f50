"""A project on disk whose one model behind HTTP is asked in one way, and what became of each of its cases.

scene = Scene(tmp_path, server, Way("judge", "openai/sdk"), Random(7))
hit, = scene.cases("[[fault:500:2]]")          # among others that nothing befalls
assert scene.run().returncode == 0             # `llmops run`, inside this process
assert (scene.fate(hit).outcome, scene.fate(hit).attempts) == ("ok", 3)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.records import Call, CallState, Output, Row, Run, Spent, Status
from llmops.stores.journal import Journal, open_journal
from tests.cli.inside import Done, llmops_inside
from tests.model_server import ModelServer, Received
from tests.models.conformance import API_VERSION, SDK
from tests.workplace import calls_in

KEY = "sk-canary/0123+456789="
WHOLE, STREAMED, EMBEDDINGS, JUDGE = "whole", "streamed", "embeddings", "judge"
KINDS = (WHOLE, STREAMED, EMBEDDINGS, JUDGE)
CHATS = (WHOLE, STREAMED)
CLIENTS = ("openai", f"openai{SDK}", "azure_openai", f"azure_openai{SDK}", "azure_inference")
CONCURRENCY = 4
ATTEMPTS = 3
STORE = "sqlite:///.llmops/store.db"
PER_TOKEN = {"prompt_tokens": 1e-6, "completion_tokens": 2e-6}
"""US dollars, as the project has them."""

ANSWERED, NO_SCORE, NOTHING = "ok", "no score", "nothing"
"""Of outcomes: there is what was asked for; an evaluator has said for good that there is none; nothing yet."""

_SORT = """
inputs: {ticket: string}
parameters: {max_tokens: 60}
messages:
  - {role: system, content: "Answer with one word only: red, green, blue."}
  - {role: user, content: "{{ ticket }}"}
"""
_SAY = _SORT.replace("Answer with one word only: red, green, blue.", "Say something.")
_FIT = """
inputs: {output: string, metadata: any}
model: asked
parameters: {max_tokens: 60}
messages:
  - {role: system, content: "How good is the answer?"}
  - {role: user, content: "answer {{ output }} note {{ metadata.note }}"}
"""
_ASKED_BY = {
    WHOLE: "evaluators: [exact_match, json_valid]",
    STREAMED: "evaluators: [exact_match, json_valid]",
    EMBEDDINGS: "evaluators: [cosine: {model: asked}]",
    JUDGE: "evaluators: [judge: {name: fit, prompt: fit, scale: [1, 5]}]",
}


@dataclass(frozen=True)
class Way:
    """How the model is asked: kind is one of KINDS, client one of CLIENTS."""

    kind: str
    client: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.client.replace('/', '_')}"

    @property
    def provider(self) -> str:
        return self.client.removesuffix(SDK)

    @property
    def is_chat(self) -> bool:
        """Whether the model gives outputs; it scores them otherwise, and `embedded` gives them."""
        return self.kind in CHATS


@dataclass(frozen=True)
class Fate:
    """What became of one case. requests: those that the server received for it."""

    row: Row
    call: Call | None
    requests: list[Received]
    outcome: str

    @property
    def attempts(self) -> int:
        return self.call.attempts if self.call else 0

    @property
    def said(self) -> str:
        """Why there is no output or score."""
        errors = [score.error for score in self.row.scores if score.error]
        if self.row.output is not None and self.row.output.error is not None:
            errors.insert(0, self.row.output.error.message)
        if self.call is not None and self.call.error is not None:
            errors.insert(0, self.call.error.message)
        return errors[0] if errors else ""


@dataclass(frozen=True)
class Books:
    """What the journal has of a project. account: what its last run came to."""

    run: Run
    rows: list[Row]
    calls: list[Call]
    account: Spent


@dataclass
class Scene:
    """A project at `root`; `url` is where its model is, the server's own address unless it is set.

    more: fields of the model. extra: lines of the experiment. certificates: a file of those that are trusted.
    """

    root: Path
    server: ModelServer
    way: Way
    random: Random
    url: str = ""
    key: str = KEY
    store: str = STORE
    certificates: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    extra: str = ""
    _n_before: int = 0
    _seed: int = 0
    _nonces: dict[str, str] = field(default_factory=dict)
    _books: Books | None = None

    def __post_init__(self) -> None:
        self.server.script, self.server.outage, self.server.revoked = [], "", set()
        self._n_before = len(self.server.received)
        self._seed = self.random.randrange(1000)
        for name, text in {"sort": _SORT, "say": _SAY + "model: asked\n", "fit": _FIT}.items():
            self._write(f"prompts/{name}.prompt.yaml", text)
        self._write("datasets/tickets.dataset.yaml", "inputs: {ticket: string}\nexpected: {type: string}\n")

    # --- before ---------------------------------------------------------------------------------------

    def cases(self, *texts: str, n_well: int = 3) -> list[str]:
        """Write cases that say these texts to the model, among others that say none; return their ids in order."""
        numbers = list(range(len(texts) + n_well))
        self.random.shuffle(numbers)
        spoken = dict(zip((f"c{number}" for number in numbers), [*texts, *[""] * n_well], strict=True))
        self._nonces = {case_id: f"n{self.random.getrandbits(40):010x}" for case_id in spoken}
        lines = [json.dumps(self._case(case_id, spoken[case_id])) for case_id in sorted(spoken)]
        self._write("datasets/tickets.jsonl", "\n".join(lines) + "\n")
        return list(spoken)[: len(texts)]

    def nonce(self, case_id: str) -> str:
        """Return what is said of this case and of no other."""
        return self._nonces[case_id]

    def _case(self, case_id: str, text: str) -> dict[str, Any]:
        said = f"{self._nonces[case_id]} {text}"
        return {
            "id": case_id,
            "inputs": {"ticket": said if self.way.is_chat else f"ticket {case_id}"},
            "expected": said if self.way.kind == EMBEDDINGS else "red",
            "metadata": {"note": said if self.way.kind == JUDGE else ""},
        }

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _write_project(self) -> None:
        limits = {"concurrency": CONCURRENCY, "attempts": ATTEMPTS, "timeout_s": 20}
        asked: dict[str, Any] = {
            "provider": self.way.provider,
            "model": "m",
            "endpoint_env": "MODEL_URL",
            "api_key_env": "MODEL_KEY",
            "price": {"input_per_mtok": 1, "output_per_mtok": 2},
            **self.more,
            "limits": limits | self.more.get("limits", {}),
        }
        if self.way.client.endswith(SDK):
            asked["client"] = "sdk"
        if self.way.provider == "azure_openai":
            asked["api_version"] = API_VERSION
        if self.way.kind == STREAMED:
            asked["stream"] = True
        project = {
            "models": {"default": {"provider": "embedded"}, "asked": asked},
            "store": {"url": self.store},
        }
        self._write("llmops.yaml", json.dumps(project))  # JSON is YAML
        variants = (
            "{plain: {prompt: say}, beside: {prompt: sort}}"
            if self.way.is_chat
            else "{beside: {prompt: sort}}"
        )
        experiment = f"dataset: tickets\nvariants: {variants}\n{_ASKED_BY[self.way.kind]}\n"
        self._write("experiments/ward.experiment.yaml", f"{experiment}seed: {self._seed}\n{self.extra}")

    # --- the run --------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        address = {"MODEL_URL": self.url or self.server.url_of(self.way.provider), "MODEL_KEY": self.key}
        return {**address, "SSL_CERT_FILE": self.certificates} if self.certificates else address

    def run(self, *options: str) -> Done:
        """Carry the experiment out from the command line; no traceback and no key may show.

        options: `--json` if none, for to draw a report takes as long as to carry the run out.
        """
        self._write_project()
        self._books = None
        command = ("run", "ward", "--no-sync", *(options or ("--json",)))
        done = llmops_inside(*command, cwd=self.root, more=self.environment)
        for said in (done.stdout, done.stderr):
            assert "Traceback" not in said
            assert KEY not in said
        return done

    def run_again(self) -> list[Received]:
        """Carry it out to its end, now that nothing is wrong; return what was sent, none of it answered before."""
        self.server.script, self.server.outage = [], ""
        answered = {call.id for call in self.calls() if call.state is CallState.ANSWERED}
        n_before = len(self.server.received)
        done = self.run()
        assert done.returncode == 0, done.stderr
        sent = self.server.received[n_before:]
        assert not answered & {each.call_id for each in sent}
        return sent

    # --- after ----------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Received]:
        """All that the server has received of this project."""
        return self.server.received[self._n_before :]

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        with closing(open_journal(self.store, root=self.root)) as journal:
            yield journal

    @property
    def books(self) -> Books:
        """What the journal has after the last carrying out, read once."""
        if self._books is None:
            with self.journal() as journal:
                run = journal.latest_run("ward")
                assert run is not None
                rows, account = list(journal.rows(run.id)), journal.account(run.id)
                assert account is not None
                self._books = Books(run, rows, calls_in(journal), account)
        return self._books

    def calls(self, model: str = "asked") -> list[Call]:
        """Return every call of a model, whatever came of it."""
        return [call for call in self.books.calls if call.model == model]

    @property
    def last_run(self) -> Run:
        """The run as the journal has it."""
        return self.books.run

    def outputs(self, variant: str) -> list[Output | None]:
        """Return what a variant gave, `plain` of chats or `beside` of the offline model."""
        return [row.output for row in self.books.rows if row.variant == variant]

    def fate(self, case_id: str) -> Fate:
        """Return what became of a case: an output of the model, or its score of an output."""
        variant = "plain" if self.way.is_chat else "beside"
        row = next(row for row in self.books.rows if (row.variant, row.case.id) == (variant, case_id))
        nonce = self.nonce(case_id)
        call = next((call for call in self.calls() if nonce in call.request.model_dump_json()), None)
        requests = [each for each in self.requests if nonce in json.dumps(each.body)]
        return Fate(row, call, requests, _outcome(row, call, is_chat=self.way.is_chat))

    def fates(self, *case_ids: str) -> list[str]:
        """Return the outcomes of cases, of all in the order of their ids when none is named."""
        return [self.fate(case_id).outcome for case_id in case_ids or sorted(self._nonces)]

    def load(self) -> Any:
        """Return the project as the library reads it."""
        self._write_project()
        return load_workspace(self.root)


def _outcome(row: Row, call: Call | None, *, is_chat: bool) -> str:
    output = row.output
    if is_chat:
        if output is None:
            return NOTHING
        if output.status is Status.ERROR:
            assert output.error is not None and call is not None and call.error is not None
            assert output.error.kind == call.error.kind
            return f"error/{output.error.kind}"
        return str(output.status)
    assert output is not None and output.status is Status.OK
    score = next(iter(row.scores), None)
    if score is not None:
        return ANSWERED if score.error is None else NO_SCORE
    return f"error/{call.error.kind}" if call is not None and call.error is not None else NOTHING


def sent(requests: list[Received]) -> Counter[str]:
    """Return how often each call was sent."""
    return Counter(each.call_id for each in requests)


def assert_books_agree(scene: Scene) -> None:
    """What journal and run say was sent and billed is what the server says; `embedded` has calls of its own."""
    assert {call.id: call.attempts for call in scene.calls() if call.attempts} == sent(scene.requests)
    of_embedded = sum(call.attempts for call in scene.calls("default"))
    run = scene.last_run
    assert run.n_calls == len(scene.requests) + of_embedded
    usages = [request.usage for request in scene.requests if request.usage is not None]
    billed_usd = sum(usage.get(name, 0) * price for usage in usages for name, price in PER_TOKEN.items())
    account = scene.books.account
    assert billed_usd <= account.usd + account.hidden_usd + 1e-12
    if not account.n_unpriced and not account.n_unknown:
        assert run.cost_usd == pytest.approx(billed_usd)


# --- which ways -----------------------------------------------------------------------------------------------

_STREAMS_ONLY = "events are of streams; a whole reply that is cut or no JSON is F20 and F21"
_NO_TEXT = "vectors are no text"
LEFT_OUT: dict[str, dict[str, str]] = {
    "F13": {EMBEDDINGS: "the reply to a request for vectors has no finish_reason"},
    "F14": {EMBEDDINGS: "filters read text, and the reply to a request for vectors has none"},
    "F16": {EMBEDDINGS: "the reply to a request for vectors has no finish_reason"},
    "F23": {EMBEDDINGS: "the reply to a request for vectors has neither content, tool calls nor refusal"},
    "F27": {EMBEDDINGS: _NO_TEXT},
    "F24-reconcile": {EMBEDDINGS: "no service keeps vectors"},
    "F30": {WHOLE: _STREAMS_ONLY, EMBEDDINGS: _STREAMS_ONLY, JUDGE: _STREAMS_ONLY},
}
"""Kinds that a fault cannot befall, each with the reason."""
FEWER_CLIENTS: dict[str, dict[str, str]] = {
    EMBEDDINGS: {"azure_openai": "what the lean client sends to its address is seen in chats"},
    JUDGE: dict.fromkeys(
        [f"openai{SDK}", "azure_openai", f"azure_openai{SDK}"],
        "a judge asks as any chat does, and chats are asked through them",
    ),
}
"""Clients through which a kind is not asked, whatever the fault, to keep the matrix to a minute; with the reason."""
LEFT_OUT_CLIENTS: dict[str, dict[str, str]] = {
    "F24-reconcile": {"azure_inference": "the service keeps nothing, as `check` says of the policy"},
}
"""The same of clients."""


def over(fault_id: str) -> pytest.MarkDecorator:
    """Return the mark that carries a scenario out in every way in which its fault can come."""
    kinds = [kind for kind in KINDS if kind not in LEFT_OUT.get(fault_id, {})]
    clients = [client for client in CLIENTS if client not in LEFT_OUT_CLIENTS.get(fault_id, {})]
    ways = [Way(kind, client) for kind in kinds for client in clients]
    kept = [way for way in ways if way.client not in FEWER_CLIENTS.get(way.kind, {})]
    return pytest.mark.parametrize("way", kept, ids=str)
