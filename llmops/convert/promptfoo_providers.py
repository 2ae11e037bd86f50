"""The providers of a promptfoo configuration, as variants: each prompt, asked of each model with its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from llmops.convert.account import Page
from llmops.convert.job import Job
from llmops.convert.keys import is_secret_name
from llmops.convert.names import file_name
from llmops.convert.settings import key_variable, read_address, read_parameters, say_model
from llmops.definitions.base import canonical
from llmops.definitions.documents import Location

_SERVERS = {
    "ollama": "http://localhost:11434/v1",
    "localai": "http://localhost:8080/v1",
    "vllm": "http://localhost:8000/v1",
    "llama": "http://localhost:8080/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "together": "https://api.together.xyz/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "github": "https://models.github.ai/inference",
}
_KEYS = {"openrouter": "OPENROUTER_API_KEY", "groq": "GROQ_API_KEY", "mistral": "MISTRAL_API_KEY"} | {
    "together": "TOGETHER_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "github": "GITHUB_TOKEN",
}
_KINDS = ("chat", "completion", "responses")


class _Told(NamedTuple):
    """One provider as it is told. names: where its id stands; place: where its options do."""

    id: str
    options: dict[str, Any]
    names: Location
    place: Location


def read_variants(job: Job, page: Page, prompts: list[str]) -> dict[str, dict[str, Any]]:
    """Return the variants of the experiment: prompts times providers, those that are the same once."""
    asked: list[tuple[str, _Told | None, dict[str, Any]]] = []
    asked += [(_label(told), told, _asked(job, page, told)) for told in _providers(page)]
    variants: dict[str, dict[str, Any]] = {}
    seen: dict[str, str] = {}
    for prompt in prompts:
        for label, told, changed in asked or [("", None, {})]:
            variant = {"prompt": prompt, **changed}
            if canonical(variant) in seen:
                continue
            words = f"{prompt}_{label}" if len(asked) > 1 else prompt
            name = file_name(words, taken=variants)
            seen[canonical(variant)] = name
            variants[name] = variant
            if told is not None:
                page.keep((*told.place, "label"), "part of the variant's name")
    return variants


def _providers(page: Page) -> Iterator[_Told]:
    for key in ("providers", "targets"):
        told = page.value.get(key)
        items: list[tuple[Location, Any]] = [((key,), told)] if isinstance(told, str | dict) else []
        if isinstance(told, list):
            items = [((key, index), item) for index, item in enumerate(told)]
        for place, item in items:
            if isinstance(item, str):
                yield _Told(item, {}, place, place)
            elif isinstance(item, dict) and isinstance(item.get("id"), str):
                yield _Told(item["id"], item, (*place, "id"), place)
            elif isinstance(item, dict):
                yield from (
                    _Told(name, options, (*place, name, "id"), (*place, name))
                    for name, options in item.items()
                    if isinstance(options, dict)
                )


def _label(told: _Told) -> str:
    label = told.options.get("label")
    return label if isinstance(label, str) else told.id.rpartition(":")[2]


def _asked(job: Job, page: Page, told: _Told) -> dict[str, Any]:
    """Return what a provider changes in a prompt: model and parameters."""
    config = told.options.get("config")
    config = config if isinstance(config, dict) else {}
    place = (*told.place, "config")
    parameters = read_parameters(page, place, config)
    changed = {"parameters": parameters} if parameters else {}
    block = _block(told.id)
    if block is None:
        for key in config:
            if is_secret_name(key):
                page.drop((*place, key), "the key is not copied")
        page.approximate(told.names, f"asked of {job.default_model}: llmops has no provider for it")
        return changed
    read_address(page, place, config, block)
    name, known = job.model(_whole(block))
    say_model(page, [told.names], name, known=known)
    return ({"model": name} if known else {}) | changed


def _block(provider: str) -> dict[str, Any] | None:
    """Return the block of llmops.yaml for a provider's id; None where llmops has no provider for it."""
    kind, _, rest = provider.partition(":")
    if kind == "openai" or kind in _SERVERS:
        first, _, model = rest.partition(":")
        model = model if first in _KINDS and model else rest
        block = {"provider": "openai", "model": model}
        if kind in _SERVERS:
            block |= {"endpoint": _SERVERS[kind]} | ({"api_key_env": _KEYS[kind]} if kind in _KEYS else {})
        return block if model and first not in {"embedding", "embeddings", "image", "moderation"} else None
    if kind in {"azure", "azureopenai"}:
        return {"provider": "azure_openai", "model": rest.rpartition(":")[2] or rest}
    return None


def _whole(block: dict[str, Any]) -> dict[str, Any]:
    if block["provider"] == "azure_openai" and not {"endpoint", "endpoint_env"} & {*block}:
        block["endpoint_env"] = "AZURE_OPENAI_ENDPOINT"
    if not str(block.get("endpoint", "")).startswith("http://localhost"):
        block.setdefault("api_key_env", key_variable(block))
    return block
