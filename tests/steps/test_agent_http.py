"""An HTTP operation as a tool: the model gives its inputs, and what the service says is an observation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmops.records import Row, Status
from tests.model_server import ModelServer, turns
from tests.steps.flows import flown, spans_of, write_flow
from tests.workplace import Workplace


class Open(Workplace):
    """A workplace whose environment lets http steps reach this machine."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "LLMOPS_PRIVATE_HOSTS": "127.0.0.1"}


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Open:
    place = Open(tmp_path, server)
    steps = f"""
    - id: solve
      agent:
        prompt: say
        with: {{text: "{{{{ ticket }}}}"}}
        max_usd: 1
        tools:
          - name: stock
            description: How many of an article are left.
            inputs: {{article: string}}
            http:
              url: '{server.base_url}/api/stock/{{{{ article }}}}'
              query: {{fault: "{{{{ '[[fault:' ~ article ~ ']]' }}}}"}}
    """
    write_flow(place, steps)
    return place


def asked(place: Workplace, article: Any) -> Row:
    (row,) = flown(place, turns([("stock", {"article": article})], "so be it"))
    return row


def test_the_model_gives_the_inputs_of_an_operation_and_sees_its_answer(place: Workplace) -> None:
    row = asked(place, "tent/../x")
    assert row.output is not None
    assert (row.output.value, row.output.status) == ("so be it", Status.OK)
    (call,) = spans_of(row, "http")
    assert call.inputs["url"].endswith("/api/stock/tent%2F..%2Fx")
    _, second = spans_of(row, "prompt")
    assert '"status": 200' in second.inputs["observations"][0]


def test_an_operation_that_is_refused_is_an_observation(place: Workplace) -> None:
    row = asked(place, "404")
    assert row.output is not None and row.output.value == "so be it"
    (tool,) = spans_of(row, "tool")
    assert tool.error is not None and "(404)" in tool.error.message


def test_a_service_that_is_down_ends_the_case_which_is_tried_again(place: Workplace) -> None:
    row = asked(place, "503")
    assert row.output is not None and row.output.status is Status.ERROR
    assert [span.kind for span in row.output.spans] == ["chain", "agent", "prompt", "tool", "http"]
    assert [span.index for span in row.output.spans] == list(range(len(row.output.spans)))
