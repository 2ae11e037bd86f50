"""What is wrong with the models of llmops.yaml, and with how prompts and steps ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from llmops.addresses import SECRET_HOSTS
from llmops.definitions.documents import Document, Location
from llmops.definitions.project import ModelDefinition
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError, nearest
from llmops.models import model_class, open_model, untaken_settings
from llmops.models.abilities import able_providers
from llmops.models.base import Ability
from llmops.steps.base import Program
from llmops.steps.prompt import PromptProgram


def check_project(workspace: Workspace) -> list[Finding]:
    """Return what is wrong in llmops.yaml: providers that do not exist, models that lack what theirs needs."""
    document = workspace.project_document
    found = []
    for name, definition in workspace.project.models.items():
        try:
            untaken = untaken_settings(definition)
            found += [_untaken(document, name, definition, key) for key in untaken]
            found += _unreconciled(document, name, definition)
            found += _fallback_findings(workspace, document, name)
            if not untaken:
                open_model(name, definition, _stand_ins(definition))
        except LlmopsError as error:
            found.append(document.finding(("models", name), str(error)))
    return found


def _unreconciled(document: Document, name: str, definition: ModelDefinition) -> list[Finding]:
    needed = Ability.RECONCILE
    if definition.on_unknown != "reconcile" or needed in model_class(definition.provider).abilities:
        return []
    message = f"model {name!r}: {definition.provider} keeps no replies that could be looked up"
    able = ", ".join(able_providers([needed]))
    hint = f"on_unknown: retry or fail; only {able} can reconcile"
    return [document.finding(("models", name, "on_unknown"), message, hint)]


def _fallback_findings(workspace: Workspace, document: Document, name: str) -> list[Finding]:
    models, at = workspace.project.models, ("models", name, "fallback")
    names = workspace.project.in_turn(name)
    if len(names) > 1 and names[1] not in models:
        hint = nearest(names[1], models) or f"there are: {', '.join(models)}"
        return [document.finding(at, f"there is no model {names[1]!r}", hint)]
    if names[-1] in models and models[names[-1]].fallback == name:
        return [document.finding(at, f"fallbacks in a ring: {' -> '.join((*names, name))}")]
    return []


def _untaken(document: Document, name: str, definition: ModelDefinition, key: str) -> Finding:
    taken = ", ".join(sorted(model_class(definition.provider).settings))
    message = f"model {name!r}: {definition.provider} takes no {key}"
    return document.finding(("models", name, key), message, f"it takes: {taken}")


def _stand_ins(definition: ModelDefinition) -> dict[str, str]:
    """Return an environment in which a model lacks nothing but what llmops.yaml should have said."""
    environment = {}
    if definition.endpoint is not None:
        with suppress(ValueError):
            environment[SECRET_HOSTS] = urlsplit(definition.endpoint).hostname or ""
    if definition.endpoint_env is not None:
        environment[definition.endpoint_env] = "https://model.invalid/v1"
    if definition.api_key_env is not None:
        environment[definition.api_key_env] = "absent"  # too short to be taken for a secret
    return environment


def model_findings(
    workspace: Workspace, document: Document, place: Location, model: str, parameters: Mapping[str, Any]
) -> list[Finding]:
    """Return what is wrong with asking a model with these parameters.

    place: of the prompt, step or variant that says `model` and `parameters`.
    """
    try:
        definition = workspace.model(model)
        takes = model_class(definition.provider).parameters
    except DefinitionError:
        return []  # llmops.yaml itself is wrong, and that is told once
    except LlmopsError as error:
        return [document.finding((*place, "model"), str(error))]
    return [
        document.finding(
            (*place, "parameters", key),
            f"model {model} ({definition.provider}) takes no {key}",
            f"it takes: {', '.join(sorted(takes))}",
        )
        for key in parameters
        if key not in takes
    ]


def image_findings(workspace: Workspace, document: Document, place: Location, model: str) -> list[Finding]:
    """Return that a model takes no images: its provider sends none, or its card says so."""
    try:
        definition = workspace.model(model)
        takes = Ability.IMAGES in model_class(definition.provider).abilities
    except LlmopsError:
        return []  # told where its parameters are
    at = (*place, "model")
    if not takes:
        able = ", ".join(able_providers([Ability.IMAGES]))
        return [document.finding(at, f"model {model} ({definition.provider}) takes no images", f"{able} can")]
    modalities = definition.card.modalities if definition.card is not None else ()
    if modalities and "image" not in modalities:
        return [
            document.finding(at, f"model {model} takes {', '.join(modalities)} by its card, and no images")
        ]
    return []


def program_findings(
    workspace: Workspace, document: Document, place: Location, program: Program
) -> list[Finding]:
    """Return what is wrong with how the prompts below a program ask their models."""
    return [
        finding
        for prompt in prompts_of(program)
        for model in prompt.models
        for finding in (
            *model_findings(workspace, document, place, model, prompt.parameters),
            *(image_findings(workspace, document, place, model) if prompt.shows_images else ()),
        )
    ]


def prompts_of(program: Program) -> Iterator[PromptProgram]:
    """Yield every prompt a program asks, through all chains below it."""
    if isinstance(program, PromptProgram):
        yield program
    for part in program.parts.values():
        yield from prompts_of(part)
