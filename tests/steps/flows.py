"""A project with one chain, carried out for cases of its own through journal and server."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from llmops.records import Row, Span
from tests.workplace import Workplace

PROMPTS = """
inputs: {text: string}
messages:
  - {role: user, content: "{{ text }}"}
"""
EXPERIMENT = """
dataset: tickets
variants:
  plain: {chain: flow}
evaluators: [{contains: {output: "{{ output | string }}", any: [echo]}}]
"""


def write_flow(
    place: Workplace, steps: str, *, files: Mapping[str, str] | None = None, outputs: str = ""
) -> None:
    """Write the chain `flow` of one input, `ticket`, with its experiment `flow`; steps: YAML, any indent."""
    listed = textwrap.indent(textwrap.dedent(steps).strip("\n"), "  ")
    place.write("chains/flow.chain.yaml", f"inputs: {{ticket: string}}\nsteps:\n{listed}\n{outputs}")
    place.write("prompts/say.prompt.yaml", PROMPTS)
    place.write("experiments/flow.experiment.yaml", EXPERIMENT)
    for name, text in (files or {}).items():
        place.write(name, text)


def write_tickets(place: Workplace, *tickets: str) -> None:
    """Let the dataset hold these tickets."""
    place.write_cases(
        *({"id": f"c{n}", "inputs": {"ticket": each}, "expected": "echo"} for n, each in enumerate(tickets))
    )


def flown(place: Workplace, *tickets: str, **options: Any) -> list[Row]:
    """Return the rows of running the flow on tickets, in their order."""
    if tickets:
        write_tickets(place, *tickets)
    rows = place.rows(place.run("flow", **options).run)
    return sorted(rows, key=lambda row: row.case.id)


def spans_of(row: Row, kind: str) -> Sequence[Span]:
    """Return the spans of a row that carry out one verb."""
    assert row.output is not None
    return [span for span in row.output.spans if span.kind == kind]
