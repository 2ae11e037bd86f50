"""The alias in MLflow, which follows the file of releases: set, published text compared, and any drift told.

MLflow is only where people look. What it says decides nothing, and where it says otherwise, the file holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from llmops.definitions.base import short
from llmops.definitions.prompt import Prompt, TextMessage
from llmops.definitions.release import AuditedRelease
from llmops.definitions.templates import TemplateError
from llmops.errors import LlmopsError, StepError, UsageError
from llmops.render import Renderer
from llmops.sync import find_prompt

if TYPE_CHECKING:
    from llmops.definitions.case_file import Case
    from llmops.definitions.release import Release
    from llmops.definitions.workspace import Workspace
    from llmops.stores.mlflow import MlflowStore, Published
    from llmops.stores.shipment import PromptText

CASES = 20
"""Cases a published prompt is rendered for."""


@dataclass(frozen=True)
class Projected:
    """An alias in MLflow. where: what it points at, None for nothing. drift: in what it is not what the file says."""

    where: str | None
    drift: str | None = None


def project_release(workspace: Workspace, store: MlflowStore, release: Release) -> Projected:
    """Let MLflow's alias follow a release, and return what is there then, read back.

    Raises StoreError when MLflow fails, or has no model of a chain yet.
    """
    store.point(release, _text(workspace, release))
    return find_drift(workspace, store, release)


def find_drift(workspace: Workspace, store: MlflowStore, release: Release) -> Projected:
    """Return what MLflow's alias points at, and in what that is not the release.

    A published prompt is rendered beside the one that was judged, byte for byte: its text can be edited there.

    Raises StoreError when MLflow fails.
    """
    found = store.published(release)
    if found is None:
        return Projected(None, f"it has no alias {release.alias} of {release.name}")
    if found.identity != release.identity:
        other = "another version" if found.identity is None else short(found.identity)
        return Projected(
            found.where, f"{release.alias} points at {found.where}, {other}, not {short(release.identity)}"
        )
    return Projected(found.where, _text_drift(workspace, release, found))


def _text(workspace: Workspace, release: Release) -> PromptText | None:
    if release.kind != "prompt":
        return None
    found = find_prompt(workspace, release.name, release.identity, lambda _: None)
    if isinstance(found, str):
        raise UsageError(f"prompt {release.name} as released {found}")
    return found


def _text_drift(workspace: Workspace, release: Release, found: Published) -> str | None:
    """Say where a published prompt is another: in what it becomes for a case, else in what no case has shown."""
    text = _text(workspace, release)
    if text is None or found.messages is None:
        return None
    told = f"{found.where} has another text than prompt {release.name} as released"
    if [each.get("role") for each in found.messages] != [each["role"] for each in text.messages]:
        return f"{told}: its messages are others"
    judged = _prompt(workspace, release)
    published = _as_published(judged, found.messages)
    for case in _cases(workspace, release):
        if _rendered(workspace, published, case) != _rendered(workspace, judged, case):
            return f"{told}: for case {case.id} it becomes something else"
    pairs = zip(text.messages, found.messages, strict=True)
    differing = [n for n, (ours, theirs) in enumerate(pairs, 1) if ours["content"] != theirs.get("content")]
    return f"{told}: message {differing[0]} differs" if differing else None


def _prompt(workspace: Workspace, release: Release) -> Prompt:
    resolved = workspace.resolve("prompt", f"{release.name}@{release.identity}")
    return resolved.workspace.prompt(resolved.name)


def _as_published(prompt: Prompt, messages: Sequence[Mapping[str, str]]) -> Prompt:
    """Return a prompt with the texts that MLflow gives back; how examples are chosen it is only told in words."""
    changed = [
        ours.model_copy(update={"content": theirs["content"]})
        if isinstance(ours, TextMessage) and isinstance(ours.content, str)
        else ours
        for ours, theirs in zip(prompt.messages, messages, strict=True)
    ]
    return prompt.model_copy(update={"messages": tuple(changed)})


def _rendered(workspace: Workspace, prompt: Prompt, case: Case) -> bytes | None:
    """Return every byte of the messages of a case, None where there are none."""
    pool: Sequence[Case] = ()
    if prompt.examples is not None and prompt.examples.k:
        dataset, split = workspace.cases(prompt.examples.source)
        pool = dataset.of(split)
    try:
        messages = Renderer(prompt, pool, images=workspace.images).messages(
            case.inputs, case_id=case.id, cluster=case.cluster
        )
    except (StepError, TemplateError):
        return None
    return "\n".join(message.model_dump_json() for message in messages).encode()


def _cases(workspace: Workspace, release: Release) -> Iterator[Case]:
    """Yield some cases of the dataset a release was judged on, as it stands today."""
    if not isinstance(release, AuditedRelease) or release.evidence is None:
        return
    try:
        dataset, split = workspace.cases(release.evidence.dataset)
    except LlmopsError:  # gone or renamed since
        return
    yield from islice(dataset.of(split), CASES)
