"""What a model from code calls: a prompt or chain of a project, once for each row, each call paid for anew."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmops.call import Budget, open_caller, open_deployments
from llmops.definitions.reference import Kind
from llmops.definitions.workspace import Workspace, load_workspace
from llmops.errors import StepError, UsageError
from llmops.records import Output
from llmops.run import carry_out_case
from llmops.steps import load_functions, open_program
from llmops.steps.base import Context, Program, Trace
from llmops.steps.overrides import Overrides
from llmops.stores.journal import open_journal


def predict(project: str, kind: Kind, name: str, rows: Any) -> list[Any]:
    """Return the output for each row of inputs.

    project: a folder with llmops.yaml. rows: a data frame, or one mapping of inputs or a list of them.

    Raises LlmopsError with the first output's error where one has none.
    """
    workspace = load_workspace(Path(project))
    program = open_program(workspace.resolve(kind, name), Overrides(), seed=0)
    load_functions(program)
    outputs = _carried_out(_all(workspace, program, _rows(rows)))
    for number, output in enumerate(outputs):
        if output.error is not None:
            raise StepError(f"row {number}: {output.error.kind}: {output.error.message}")
    return [output.value for output in outputs]


def _rows(told: Any) -> list[dict[str, Any]]:
    if hasattr(told, "to_dict"):
        told = told.to_dict(orient="records")
    found = [told] if isinstance(told, dict) else list(told)
    if not all(isinstance(row, dict) for row in found):
        raise UsageError("a model of llmops takes mappings of inputs, or a data frame with a column for each")
    return found


async def _all(workspace: Workspace, program: Program, rows: Sequence[dict[str, Any]]) -> list[Output]:
    with tempfile.TemporaryDirectory(prefix="llmops-") as folder:
        journal = open_journal("sqlite:///store.db", root=Path(folder))
        deployments = open_deployments(workspace, program.models, os.environ, concurrency=None)
        with closing(journal):
            async with open_caller(deployments, journal, Budget(), _now) as (caller, _):
                contexts = [Context(caller=caller, trace=Trace()) for _ in rows]
                return await asyncio.gather(
                    *(
                        carry_out_case(program, row, context, program.identity, _now)
                        for row, context in zip(rows, contexts, strict=True)
                    )
                )


def _carried_out(work: Coroutine[Any, Any, list[Output]]) -> list[Output]:
    """Return what comes of work, in a thread of its own: whoever serves a model may have a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _now() -> datetime:
    return datetime.now(UTC)
