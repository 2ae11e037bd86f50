"""The prompts of a promptfoo configuration: texts, files, chats as JSON or YAML, and objects with a label."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from llmops.convert.account import Page
from llmops.convert.job import Job
from llmops.convert.messages import ROLES, Inputs, prompt_inputs, template_of
from llmops.convert.names import file_name
from llmops.convert.translate import from_nunjucks
from llmops.definitions.documents import Location
from llmops.errors import DefinitionError, UsageError

_PROGRAMS = (".js", ".cjs", ".mjs", ".ts", ".py", ".rb", ".sh", ".exe", ".go")
_PROGRAM = "a program; llmops runs none that a configuration brings: write a chain with a python step"
_TEXTS = (".txt", ".md", ".j2", ".njk", ".jinja", ".jinja2")


class Source(NamedTuple):
    """One prompt as it is told: its text or list of messages, and where it stands."""

    told: Any
    label: str
    page: Page
    place: Location


class Written(NamedTuple):
    """A prompt that was written, by its name."""

    name: str


def read_prompts(job: Job, page: Page) -> tuple[list[Written], Inputs]:
    """Write all prompts, and return them with the names they look up.

    Raises DefinitionError where not one of them could be written.
    """
    inputs = Inputs()
    around = _around(page)
    written: list[Written] = []
    problems: list[str] = []
    for source in _sources(job, page):
        try:
            messages = _messages(source, inputs, around)
        except DefinitionError as error:
            problems.append(str(error))
            source.page.drop(source.place, f"no prompt: {error.findings[0].message}")
            continue
        name = job.name if not written else file_name(f"{job.name}_{source.label or len(written) + 1}")
        prompt = {"inputs": prompt_inputs(messages, {}), "messages": messages}
        written.append(Written(job.write("prompt", name, prompt)))
    if not written:
        said = (
            problems[0]
            if problems
            else "no prompt that llmops could write; `prompts` are texts and text files"
        )
        raise DefinitionError(page.document.finding(("prompts",), said))
    return written, inputs


def _around(page: Page) -> tuple[str, str]:
    """Return what stands before and after every prompt, by the options of all tests."""
    default = page.value.get("defaultTest")
    options = default.get("options") if isinstance(default, dict) else None
    found = []
    for key in ("prefix", "suffix"):
        text = options.get(key) if isinstance(options, dict) else None
        found.append(text if isinstance(text, str) else "")
        page.keep(("defaultTest", "options", key), "part of every prompt")
    return found[0], found[1]


def _sources(job: Job, page: Page) -> Iterator[Source]:
    told = page.value.get("prompts")
    if isinstance(told, str):
        yield from _one(job, page, ("prompts",), told, "")
    elif isinstance(told, dict):  # file to label, as it once was
        for path, label in told.items():
            yield from _one(
                job, page, ("prompts", path), f"file://{path.removeprefix('file://')}", str(label)
            )
    elif isinstance(told, list):
        for index, item in enumerate(told):
            place = ("prompts", index)
            if isinstance(item, str):
                yield from _one(job, page, place, item, "")
            elif isinstance(item, dict):
                yield from _object(job, page, place, item)


def _object(job: Job, page: Page, place: Location, item: dict[str, Any]) -> Iterator[Source]:
    label = item.get("label") or item.get("display") or ""
    if isinstance(item.get("config"), dict):
        page.drop((*place, "config"), "parameters belong to a provider here")
    for key in ("raw", "file", "id"):
        if isinstance(item.get(key), str):
            told = item[key] if key == "raw" or item[key].startswith("file://") or "\n" in item[key] else None
            if told is None:
                told = f"file://{item[key]}" if job.folder.has(item[key]) else item[key]
            page.keep((*place, "label"), "part of the prompt's name")
            page.keep((*place, "id"), "part of the prompt's name") if key != "id" else None
            yield from _one(
                job, page, (*place, key), told, str(label or (item.get("id") if key != "id" else ""))
            )
            return


def _one(job: Job, page: Page, place: Location, told: str, label: str) -> Iterator[Source]:
    """Yield the prompts that a text stands for: itself, or those in the files it names."""
    is_path = told.startswith("file://") or (
        "\n" not in told and told.endswith((*_TEXTS, *_PROGRAMS)) and " " not in told
    )
    if not is_path:
        yield Source(_chat(told), label, page, place)
        return
    path = told.removeprefix("file://")
    if path.partition(":")[0].lower().endswith(_PROGRAMS) or told.startswith(("python:", "exec:")):
        page.drop(place, _PROGRAM)
        return
    try:
        found = [source for each in job.folder.matching(path) for source in _file(job, each, label)]
    except (UsageError, DefinitionError) as error:
        page.drop(place, str(error).partition("\n")[0])
        return
    if found:
        page.keep(place, "read")
    else:
        page.drop(place, "no file of that name, or of a kind that holds no prompt")
    yield from found


def _file(job: Job, path: str, label: str) -> Iterator[Source]:
    label = label or path.rpartition("/")[2].partition(".")[0]
    if path.endswith((".yaml", ".yml", ".json")):
        page = job.read_yaml(path)
        yield Source(page.value, label, page, ())
        return
    page, text = job.read_text(path)
    parts = (
        [part.strip() for part in f"\n{text}\n".split("\n---\n")] if path.endswith(".txt") else [text.strip()]
    )
    for index, part in enumerate(part for part in parts if part):
        yield Source(_chat(part), label if index == 0 else f"{label}_{index + 1}", page, ())


def _chat(text: str) -> Any:
    """Return the messages that a text spells as JSON, or the text."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(found, list) and all(isinstance(item, dict) and "role" in item for item in found):
            return found
    return text


def _messages(source: Source, inputs: Inputs, around: tuple[str, str]) -> list[dict[str, str]]:
    page, place = source.page, source.place
    if isinstance(source.told, str):
        text = f"{around[0]}{source.told}{around[1]}"
        page.keep(place, "one message of the user")
        return [{"role": "user", "content": template_of(text, from_nunjucks, inputs, page.document, place)}]
    if not isinstance(source.told, list):
        raise DefinitionError(page.document.finding(place, "no text and no list of messages"))
    messages = []
    for index, item in enumerate(source.told):
        at = (*place, index)
        role = str(item.get("role")) if isinstance(item, dict) else ""
        said, is_whole = _text(item.get("content")) if isinstance(item, dict) else (None, False)
        if said is None or role not in {*ROLES, "developer"}:
            page.drop(at, "no message of system, user or assistant with a text")
            continue
        content = template_of(said, from_nunjucks, inputs, page.document, at)
        messages.append({"role": "system" if role == "developer" else role, "content": content})
        if is_whole:
            page.keep((*at, "role"), "messages")
            page.keep((*at, "content"), "messages")
        else:
            page.approximate(at, "the texts of its parts, one after the other")
    if not messages:
        raise DefinitionError(page.document.finding(place, "no message that a prompt could have"))
    page.keep(place, "messages")
    return messages


def _text(content: Any) -> tuple[str | None, bool]:
    """Return the text of a message's content, and whether that is all of it."""
    if isinstance(content, str):
        return content, True
    if not isinstance(content, list):
        return None, False
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return ("\n".join(texts) if texts else None), False
