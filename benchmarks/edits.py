"""`python -m benchmarks.edits`: calls issued after an edit, over the least that must be.

A chain of six steps is run, edited in one place, and run again. The least is worked out twice, and the two must agree:
by hand, below, and as what the edited project asks from nothing less what was asked before, counted in the ledger of
the server on this machine. Exits 1 when any edit costs more.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import line
from tests.model_server import ModelServer, Received, running_model_server
from tests.workplace import Workplace

CHAIN = """
description: What to answer to a ticket.
inputs: {ticket: string}
steps:
  - id: clean
    python: texts:clean
    with: {text: "{{ ticket }}"}
  - id: topic
    prompt: topic
    with: {text: "{{ clean.output }}"}
  - id: facts
    http: {url: "URL/api/facts/{{ topic.output }}", timeout_s: 20}
  - id: draft
    prompt: draft
    with: {text: "{{ clean.output }}", facts: "{{ facts.body.path }}"}
  - id: best
    vote: {n: 3, do: {prompt: review, with: {text: "{{ draft.output }}"}}}
  - id: final
    prompt: final
    with: {text: "{{ best.value }}", topic: "{{ topic.output }}"}
outputs: {answer: "{{ final.output }}", topic: "{{ topic.output }}"}
"""
FINAL = """  - id: final
    prompt: final
    with: {text: "{{ best.value }}", topic: "{{ topic.output }}"}
"""
TONE = """  - id: tone
    prompt: draft
    with: {text: "{{ clean.output }}", facts: nothing}
"""
CLEAN = "def clean(text):\n    return ' '.join(text.split())\n"
TICKETS = tuple(f"ticket {n} is about {topic}" for n, topic in enumerate(["billing", "shipping"] * 3))
FLOW, DRAFT, TOPIC = "chains/flow.chain.yaml", "prompts/draft.prompt.yaml", "prompts/topic.prompt.yaml"


class Bench(Workplace):
    """A project whose environment lets http steps reach this machine."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to ask the server."""
        return {**super().environment, "LLMOPS_PRIVATE_HOSTS": "127.0.0.1"}

    def asked_by(self, **options: bool) -> list[str]:
        """Return what running the experiment asks the server, as texts that differ where requests do."""
        self.new_requests()
        self.run("flow", **options)
        return [_asked(received) for received in self.new_requests()]


def _asked(received: Received) -> str:
    return json.dumps([received.path, received.query, received.body], sort_keys=True)


def _prompt(inputs: str, system: str, user: str) -> str:
    said = f"  - {{role: system, content: '{system}'}}\n  - {{role: user, content: '{user}'}}\n"
    return f"inputs: {{{inputs}}}\nparameters: {{max_tokens: 8}}\nmessages:\n{said}"


def write_bench(place: Bench) -> None:
    """Write the chain, its prompts, its function, six tickets and the experiment `flow`."""
    files = {
        FLOW: CHAIN.replace("URL", place.server.base_url),
        "chains/texts.py": CLEAN,
        TOPIC: _prompt("text: string", "Answer with one word only: billing, shipping.", "{{ text }}"),
        DRAFT: _prompt("text: string, facts: string", "Write an answer.", "{{ text }} {{ facts }}"),
        "prompts/review.prompt.yaml": _prompt("text: string", "Make it better.", "{{ text }}"),
        "prompts/final.prompt.yaml": _prompt(
            "text: string, topic: string", "Say it kindly.", "{{ topic }}: {{ text }}"
        ),
        "experiments/flow.experiment.yaml": (
            "dataset: tickets\nvariants: {only: {chain: flow}}\nseed: 1\n"
            "evaluators: [{exact_match: {output: '{{ output.topic }}'}}]\n"
        ),
    }
    for name, text in files.items():
        place.write(name, text)
    write_tickets(place, TICKETS)


def write_tickets(place: Bench, tickets: Sequence[str]) -> None:
    """Let the dataset hold these tickets."""
    rows = [
        {"id": f"c{n}", "inputs": {"ticket": each}, "expected": each.split()[-1]}
        for n, each in enumerate(tickets)
    ]
    place.write_cases(*rows)


@dataclass(frozen=True)
class Edit:
    """One edit. least: calls that must be, by hand: six cases, two topics, three samples."""

    name: str
    least: int
    make: Callable[[Bench], None]
    fresh: bool = False


def edit(name: str, least: int, path: str, old: str, new: str) -> Edit:
    """Return the edit that replaces a text in a file."""
    return Edit(name, least, lambda place: place.edit(path, old, new))


def _rename_chain(place: Bench) -> None:
    (place.root / FLOW).rename(place.root / "chains/other.chain.yaml")
    place.edit("experiments/flow.experiment.yaml", "chain: flow", "chain: other")


def _rename_prompt(place: Bench) -> None:
    (place.root / DRAFT).rename(place.root / "prompts/letter.prompt.yaml")
    place.edit(FLOW, "prompt: draft", "prompt: letter")


def _rename_step(place: Bench) -> None:
    place.edit(FLOW, "id: draft", "id: letter")
    place.edit(FLOW, "{{ draft.output }}", "{{ letter.output }}")


def _reorder(place: Bench) -> None:
    place.edit(FLOW, FINAL, "")
    place.edit(FLOW, "steps:\n", f"steps:\n{FINAL}")


def _remove_step(place: Bench) -> None:
    place.edit(FLOW, FINAL, "")
    place.edit(FLOW, "{{ final.output }}", "{{ best.value }}")


EDITS = (
    Edit("nothing at all", 0, lambda _: None),
    edit("a description", 0, FLOW, "What to answer", "Which words to answer"),
    edit("a comment", 0, FLOW, "steps:\n", "steps:  # in turn\n"),
    edit("an evaluator", 0, "experiments/flow.experiment.yaml", "exact_match", "contains"),
    edit("how long to wait for a host", 0, FLOW, "timeout_s: 20", "timeout_s: 30"),
    edit("a function, its output the same", 0, "chains/texts.py", "' '.join(text.split())", "text.strip()"),
    Edit("the name of the chain's file", 0, _rename_chain),
    Edit("the name of a prompt's file", 0, _rename_prompt),
    Edit("the name of a step", 0, _rename_step),
    Edit("the order of steps", 0, _reorder),
    Edit("a step less", 0, _remove_step),
    edit("a prompt's words, its answers the same", 6, TOPIC, "Answer with one word only", "One word only"),
    edit("a prompt's words, its answers others", 6 + 18 + 6, DRAFT, "Write an answer", "Write a letter"),
    edit("a parameter, the answers the same", 6, DRAFT, "max_tokens: 8", "max_tokens: 9"),
    edit("the model of the last step", 6, FLOW, "    prompt: final\n", "    prompt: final\n    model: other\n"),
    edit("the model of a step in the middle", 6, FLOW, "    prompt: draft\n", "    prompt: draft\n    model: other\n"),
    edit("a function, its output another", 6 + 6 + 18 + 6, "chains/texts.py", ".split())", ".split()) + '!'"),
    edit("the query of a host, its answer the same", 2, FLOW, ", timeout_s", ", query: {v: 2}, timeout_s"),
    edit("the path of a host", 2 + 6 + 18 + 6, FLOW, "/api/facts/", "/api/more/"),
    edit("two samples more", 12, FLOW, "n: 3", "n: 5"),
    edit("a sample less", 0, FLOW, "n: 3", "n: 2"),
    edit("how a tie is broken", 0, FLOW, "n: 3", "n: 3, tie: shortest"),
    edit("a step more", 6, FLOW, "outputs:", f"{TONE}outputs:"),
    edit("a guard around what passes", 0, FLOW, "outputs:", "  - {id: safe, guard: {value: '{{ topic.output }}', "
         "evaluators: [{contains: {any: [ing]}}]}}\noutputs:"),
    Edit("one case", 1 + 1 + 3 + 1, lambda place: write_tickets(place, (*TICKETS[:-1], "now about shipping"))),
    Edit("a case more", 1 + 1 + 3 + 1, lambda place: write_tickets(place, (*TICKETS, "one about billing"))),
    Edit("a case less", 0, lambda place: write_tickets(place, TICKETS[1:])),
    edit("a repeat more", 38, "experiments/flow.experiment.yaml", "seed: 1", "seed: 1\nrepeats: 2"),
    Edit("nothing, and --fresh", 38, lambda _: None, fresh=True),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What an edit cost. issued: calls after it. least: that must be, by hand; and by the ledger."""

    name: str
    issued: int
    least: int
    least_by_ledger: int

    @property
    def ratio(self) -> float:
        """Calls issued over the least; 1 where neither is any."""
        if self.issued == self.least:
            return 1.0
        return self.issued / self.least if self.least else float("inf")


def outcomes(scratch: Path, server: ModelServer) -> Iterator[Outcome]:
    """Yield what each edit costs, made on a project of its own that has been run before."""
    base = Bench(scratch / "base", server)
    write_bench(base)
    before = Counter(base.asked_by())
    for number, each in enumerate(EDITS):
        yield _outcome(scratch / str(number), base, before, each)


def _outcome(scratch: Path, base: Bench, before: Counter[str], each: Edit) -> Outcome:
    edited, bare = (_copy(base, scratch / name) for name in ("edited", "bare"))
    shutil.rmtree(bare.root / ".llmops")
    for place in (edited, bare):
        each.make(place)
    issued = edited.asked_by(fresh=each.fresh)
    from_nothing = Counter(bare.asked_by())
    must_be = from_nothing if each.fresh else from_nothing - before
    return Outcome(each.name, len(issued), each.least, must_be.total())


def _copy(base: Bench, root: Path) -> Bench:
    shutil.copytree(base.root, root, ignore=shutil.ignore_patterns("__pycache__"))
    return Bench(root, base.server, _files={})


def main() -> int:
    """Print what each edit costs; 1 when one costs more than the least, or the two ways to work that out differ."""
    with tempfile.TemporaryDirectory() as scratch, running_model_server() as server:
        found = list(outcomes(Path(scratch), server))
    for each in found:
        line(each.name, f"{each.ratio:.2f}", f"{each.issued} calls of {each.least}")
    missed = [each for each in found if each.ratio != 1.0 or each.least != each.least_by_ledger]
    line("calls issued over the least, of all edits", f"{max(each.ratio for each in found):.2f}", "1.00")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
