"""Two variants -> what was changed between them: a diff of the prompts' messages, model, parameters and `set`.

Prompts are read as they stood: from the work tree or git by their identity; where one never was committed, the
messages that were sent for one case are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from llmops.compare import variant_of
from llmops.definitions.base import canonical, short
from llmops.definitions.prompt import ExamplesBlock, Prompt, as_written
from llmops.definitions.workspace import Workspace
from llmops.errors import LlmopsError, UsageError
from llmops.records import Request

if TYPE_CHECKING:
    from llmops.records import Comparison, Run, Variant
    from llmops.stores.journal import Journal

_MOST_LINES = 2_000
"""Lines of a prompt that are compared: what takes longer to compare nobody reads as a diff."""


@dataclass(frozen=True, slots=True)
class PromptChange:
    """A prompt that differs. before, after: NAME@IDENTITY. lines: a unified diff. note: what to know of it."""

    before: str
    after: str
    lines: tuple[str, ...]
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two variants, all of it as it was written by others."""

    settings: tuple[str, ...] = ()
    prompts: tuple[PromptChange, ...] = ()


@dataclass(frozen=True, slots=True)
class _Used:
    """A prompt as one side used it."""

    run: Run
    variant: Variant
    name: str
    identity: str

    def __str__(self) -> str:
        return f"{self.name}@{short(self.identity)}"


def find_changes(journal: Journal, workspace: Workspace, comparison: Comparison) -> Changes:
    """Return what differs between the sides of a comparison."""
    sides = []
    for side in (comparison.baseline, comparison.candidate):
        run = journal.named_run(side.run_id)
        sides.append((run, variant_of(run, side.variant)))
    before, after = sides
    prompts = tuple(_change(journal, workspace, old, new) for old, new in _other_prompts(before, after))
    return Changes(tuple(_settings(before[1], after[1])), prompts)


def _settings(before: Variant, after: Variant) -> Iterator[str]:
    if "prompt" not in (before.kind, after.kind) and before.definition_identity != after.definition_identity:
        yield " -> ".join(f"{side.definition}@{short(side.definition_identity)}" for side in (before, after))
    models = [
        ", ".join(dict.fromkeys(model.name for model in side.models)) or "none" for side in (before, after)
    ]
    if models[0] != models[1]:
        yield f"model: {models[0]} -> {models[1]}"
    elif before.models != after.models:
        yield f"model {models[0]}: not the same any more"
    yield from _values("", before.parameters, after.parameters)
    yield from _values("set ", before.set, after.set)


def _values(word: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys((*before, *after)):
        said = [canonical(side[key]) if key in side else "not given" for side in (before, after)]
        if said[0] != said[1]:
            yield f"{word}{key}: {' -> '.join(said)}"


def _other_prompts(before: tuple[Run, Variant], after: tuple[Run, Variant]) -> Iterator[tuple[_Used, _Used]]:
    """Yield the prompts that differ: the two tried, or of chains each prompt that both use."""
    old, new = before[1], after[1]
    if old.kind == new.kind == "prompt":
        names = [(old.definition.partition("/")[2], new.definition.partition("/")[2])]
    else:
        names = [(name, name) for name in new.prompts if name in old.prompts]
    for one, other in names:
        pair = _used(before, one), _used(after, other)
        if pair[0].identity != pair[1].identity:
            yield pair


def _used(side: tuple[Run, Variant], name: str) -> _Used:
    run, variant = side
    return _Used(run, variant, name, variant.prompts.get(name, variant.definition_identity))


def _change(journal: Journal, workspace: Workspace, old: _Used, new: _Used) -> PromptChange:
    note = None
    try:
        before, after = (message_lines(_prompt(workspace, used)) for used in (old, new))
    except UsageError as error:
        sent = _as_sent(journal, old, new)
        if sent is None:
            return PromptChange(str(old), str(new), (), str(error))
        case_id, before, after = sent
        note = f"a version stands in no commit: the messages sent for case {case_id}"
    if max(len(before), len(after)) > _MOST_LINES:
        return PromptChange(str(old), str(new), (), f"more than {_MOST_LINES:,} lines")
    lines = list(unified_diff(before, after, str(old), str(new), n=2, lineterm=""))
    return PromptChange(str(old), str(new), tuple(lines), note if lines else "the messages are the same")


def _prompt(workspace: Workspace, used: _Used) -> Prompt:
    """Return a prompt as it stood (UsageError where no tree has it): first where its run says it came from."""
    if used.run.source.commit is not None:
        with suppress(
            LlmopsError
        ):  # a commit that is gone, or had no such prompt: the others are looked through
            then = workspace.at(used.run.source.commit)
            if then.identity("prompt", used.name) == used.identity:
                return then.prompt(used.name)
    return workspace.resolve("prompt", f"{used.name}@{used.identity}").workspace.prompt(used.name)


def message_lines(prompt: Prompt) -> list[str]:
    """Return the messages of a prompt as lines, each under its role."""
    lines: list[str] = []
    for message in prompt.messages:
        if isinstance(message, ExamplesBlock):
            shown = message.examples
            lines.append(f"[examples] {shown.k} from {shown.source}, {shown.select}")
            lines += [*_under("user", message.user), *_under("assistant", message.assistant)]
        else:
            lines += _under(*as_written(message))
    return lines


def _under(role: str, content: str) -> list[str]:
    return [f"[{role}]", *content.splitlines()]


def _as_sent(journal: Journal, old: _Used, new: _Used) -> tuple[str, list[str], list[str]] | None:
    """Return a case and the messages that each side sent for it; None of chains, and where none was sent."""
    if old.variant.kind != "prompt" or new.variant.kind != "prompt":
        return None
    case_id, before = next(_calls(journal, old), ("", None))
    after = next((call_id for other, call_id in _calls(journal, new) if other == case_id), None)
    if before is None or after is None:
        return None
    return case_id, _sent_lines(journal, before), _sent_lines(journal, after)


def _calls(journal: Journal, used: _Used) -> Iterator[tuple[str, str]]:
    """Yield the first call for each case."""
    for row in journal.rows(used.run.id, variant=used.variant.name):
        spans = row.output.spans if row.output is not None else ()
        if spans and spans[0].call_id is not None:
            yield row.case.id, spans[0].call_id


def _sent_lines(journal: Journal, call_id: str) -> list[str]:
    call = journal.find_call(call_id)
    if call is None or not isinstance(call.request, Request):
        return []
    return [line for message in call.request.messages for line in _under(message.role, message.text)]
