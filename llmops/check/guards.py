"""What is wrong with a guard: evaluators that do not exist, that need a case, or whose best score nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmops.check.judges import open_asking
from llmops.definitions.build import build
from llmops.definitions.chain import Guard
from llmops.definitions.documents import Document, Location
from llmops.definitions.experiment import EvaluatorUse
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError, nearest
from llmops.evaluators import asks_models, evaluator_class


def guard_findings(workspace: Workspace, document: Document, place: Location, guard: Guard) -> list[Finding]:
    """Return what is wrong with a guard's evaluators. place: of the guard."""
    found: list[Finding] = []
    for index, use in enumerate(guard.evaluators):
        at = (*place, "evaluators", index)
        try:
            found += _evaluator_findings(workspace, document, (*at, use.kind), use, guard)
        except DefinitionError as error:
            found += error.findings
        except (LlmopsError, ValueError) as error:
            found.append(document.finding((*at, use.kind), f"{use.name}: {error}"))
    return found + list(_name_findings(document, place, guard))


def _evaluator_findings(
    workspace: Workspace, document: Document, place: Location, use: EvaluatorUse, guard: Guard
) -> Iterator[Finding]:
    kind = evaluator_class(use.kind)
    options = build(kind.Options, document, place, use.options)
    if use.kind == "python":
        workspace.code.function_node(options.function)
        high: Any = None if options.range == "open" else options.range[1]
    else:
        is_asking = asks_models(use.kind)
        evaluator = open_asking(workspace, document, place, use, options) if is_asking else kind(options)
        high = evaluator.high
        if getattr(evaluator, "lower_is_better", False):
            yield document.finding(
                place, f"{use.name} is better the lower it is, and a guard asks for `at_least`"
            )
        if getattr(evaluator, "needs_expected", False) and use.expected is None:
            message = f"{use.name} compares with what is expected, and in a chain nothing is"
            yield document.finding(place, message, "give it `expected`, a template over the chain")
    if high is None and use.name not in guard.at_least:
        yield document.finding(place, f"{use.name} has no best score; say under `at_least` which passes")


def _name_findings(document: Document, place: Location, guard: Guard) -> Iterator[Finding]:
    names = [use.name for use in guard.evaluators]
    for name in guard.at_least:
        if name not in names:
            hint = nearest(name, names) or f"its evaluators: {', '.join(names)}"
            yield document.finding((*place, "at_least", name), f"no evaluator here is called {name!r}", hint)
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f"two evaluators are called {name!r}; give one a `name`"
            yield document.finding((*place, "evaluators", index), message)
