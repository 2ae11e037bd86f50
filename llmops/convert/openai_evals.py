"""OpenAI Evals: samples as JSONL to a dataset with the prompt they share, a registry's YAML to an experiment."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from llmops.convert.account import Page
from llmops.convert.checks import Checks
from llmops.convert.job import Job
from llmops.convert.messages import ROLES, type_over
from llmops.convert.names import file_name, identifier
from llmops.convert.translate import literal
from llmops.definitions.documents import Document, Location, Mark
from llmops.definitions.jsonl_reader import read_jsonl
from llmops.errors import DefinitionError, UsageError

CONFIGURED = ("args",)
_CLASS = re.compile(r"evals\.elsuite\.(?:basic\.)?[\w.]+:(\w+)")
_TESTS = {"Match": "match", "Includes": "includes", "FuzzyMatch": "fuzzy-match"}


def convert(job: Job) -> None:
    """Write prompt and dataset of a file of samples, or those of each eval of a registry with its experiment."""
    job.configured = CONFIGURED
    if job.source.endswith(".jsonl"):
        samples = _samples(job, job.source)
        _write(job, samples)
        checks = Checks(job)
        checks.write(job.name, {job.name: {"prompt": job.name}})
        return
    page = job.read_yaml(job.source)
    specs = _specs(page)
    if not specs:
        raise DefinitionError(page.document.finding((), "no eval with a class of evals.elsuite in it"))
    first = job.name
    problems = []
    for number, (key, spec) in enumerate(specs):
        job.name = file_name(key.partition(".")[0]) if len(specs) > 1 or not job.is_named else first
        if number and f"experiments/{job.name}.experiment.yaml" in job.files:
            job.name = file_name(key)
        try:
            _eval(job, page, key, spec)
        except UsageError as error:
            problems.append(str(error))
            page.drop((key, "args", "samples_jsonl"), str(error))
            page.drop((key,), "without samples nothing can be judged")
    if not job.files:
        raise DefinitionError(page.document.finding((), problems[0]))


def _specs(page: Page) -> list[tuple[str, dict[str, Any]]]:
    told = page.value.items() if isinstance(page.value, dict) else ()
    return [
        (key, spec)
        for key, spec in told
        if isinstance(spec, dict)
        and isinstance(spec.get("class"), str)
        and isinstance(spec.get("args"), dict)
    ]


def _eval(job: Job, page: Page, key: str, spec: dict[str, Any]) -> None:
    """Write one eval of a registry."""
    args = spec["args"]
    path = args.get("samples_jsonl")
    if not isinstance(path, str):
        raise UsageError(f"{key} names no samples_jsonl")
    path = next(
        (each for each in (path, f"data/{path}", f"{path.rpartition('/')[2]}") if job.folder.has(each)), path
    )
    samples = _samples(job, path)
    page.keep((key, "args", "samples_jsonl"), f"dataset {job.name}")
    _write(job, samples)
    experiment = _description(page, key)
    checks = Checks(job)
    _evaluator(page, key, spec, checks, _accepts_lists(samples))
    tokens = args.get("max_tokens")
    variant: dict[str, Any] = {"prompt": job.name}
    if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0:
        variant["parameters"] = {"max_tokens": tokens}
        page.keep((key, "args", "max_tokens"), "parameters.max_tokens of the variant")
    page.drop((key, "args", "num_few_shot"), "examples stand in an `examples` block of the prompt")
    page.drop((key, "args", "few_shot_jsonl"), "examples stand in an `examples` block of the prompt")
    checks.write(job.name, {job.name: variant}, **experiment)


def _description(page: Page, key: str) -> dict[str, Any]:
    """Return what the registry says of an eval, at itself or at the name that leads to it."""
    found = {}
    for name, about in page.value.items():
        if not isinstance(about, dict) or (name != key and about.get("id") != key):
            continue
        page.keep((name, "id"), "the eval that is written")
        page.drop((name, "metrics"), "evaluators give the metrics")
        if isinstance(about.get("description"), str):
            found["description"] = about["description"]
            page.keep((name, "description"), "description of the experiment")
        if isinstance(about.get("disclaimer"), str):
            found["x-disclaimer"] = about["disclaimer"]
            page.keep((name, "disclaimer"), "x-disclaimer, which llmops does not read")
    return found


def _evaluator(page: Page, key: str, spec: dict[str, Any], checks: Checks, lists: bool) -> None:
    found = _CLASS.fullmatch(spec["class"])
    kind = found[1] if found else ""
    ignoring = spec["args"].get("ignore_case") is True
    if kind not in _TESTS:
        page.drop((key, "class"), "a class that llmops has no evaluator for: the experiment has none")
        return
    if kind == "Includes" and not lists:
        name = checks.add("contains", {"ignore_case": True} if ignoring else {})
    else:
        test = "iincludes" if kind == "Includes" and ignoring else _TESTS[kind]
        name = checks.add_test(test)
    page.keep((key, "class"), f"evaluator {name}")
    page.keep((key, "args", "ignore_case"), f"evaluator {name}") if kind == "Includes" else None


# --- samples ----------------------------------------------------------------------------------------------------


def _samples(job: Job, path: str) -> Page:
    if (known := job.page(path)) is not None:
        return known
    rows = list(read_jsonl(BytesIO(job.folder.read(path)), job.folder.path(path)))
    if not rows:
        raise UsageError(f"{job.folder.path(path)} has no samples")
    marks = [Mark(line, 1) for line, _ in rows]
    page = job.open(Document(job.folder.path(path), [row for _, row in rows], Mark(1, 1, marks)))
    lacking = next((n for n, row in enumerate(page.value) if "input" not in row), None)
    if lacking is not None:
        raise DefinitionError(page.document.finding((lacking,), "a sample has an input"))
    return page


def _accepts_lists(page: Page) -> bool:
    return any(not isinstance(row.get("ideal"), str) or not row["ideal"] for row in page.value)


def _write(job: Job, page: Page) -> None:
    """Write the samples as cases, and the prompt that all of them share."""
    chats = [_chat(row["input"]) for row in page.value]
    shape = _shape(chats)
    messages, names = (
        _shared(chats, shape) if shape else ([{"role": "user", "content": "{{ conversation }}"}], {})
    )
    cases: list[dict[str, Any]] = []
    for number, (row, chat) in enumerate(zip(page.value, chats, strict=True)):
        inputs = {name: chat[place][1] for place, name in names.items()}
        inputs = inputs if shape else {"conversation": "\n\n".join(f"{role}: {text}" for role, text in chat)}
        case: dict[str, Any] = {"id": f"s-{number + 1}", "inputs": inputs}
        case |= {"expected": row["ideal"]} if "ideal" in row else {}
        other = {key: value for key, value in row.items() if key not in {"input", "ideal"}}
        cases.append(case | ({"metadata": other} if other else {}))
        _settle(page, number, row, is_shared=bool(shape))
    kinds = {name: type_over(case["inputs"][name] for case in cases) for name in cases[0]["inputs"]}
    job.write("prompt", job.name, {"inputs": dict(kinds), "messages": messages})
    job.write_cases(job.name, {"inputs": kinds}, cases)


def _settle(page: Page, number: int, row: dict[str, Any], *, is_shared: bool) -> None:
    place: Location = (number, "input")
    for index, item in enumerate(row["input"] if isinstance(row["input"], list) else ()):
        if isinstance(item, dict):
            page.drop((*place, index, "name"), "a message has no name of its own here")
    if is_shared:
        page.keep(place, "messages of the prompt, and inputs of the case where they differ")
    else:
        page.approximate(place, "one text: samples differ in how many messages they have, or whose")
    page.keep((number, "ideal"), "expected")
    for key in row:
        page.keep((number, key), f"metadata.{key}")


def _chat(told: Any) -> list[tuple[str, str]]:
    """Return role and text of each message of an input."""
    if not isinstance(told, list):
        return [("user", told if isinstance(told, str) else json.dumps(told, ensure_ascii=False))]
    found = []
    for item in told:
        about = item if isinstance(item, dict) else {"role": "user", "content": item}
        content = about.get("content", "")
        role = str(about.get("role", "user"))
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        found.append((role if role in ROLES else "user", text))
    return found


def _shape(chats: Sequence[list[tuple[str, str]]]) -> tuple[str, ...]:
    """Return the roles that all chats have; none where they differ."""
    shapes = {tuple(role for role, _ in chat) for chat in chats}
    return shapes.pop() if len(shapes) == 1 else ()


def _shared(
    chats: Sequence[list[tuple[str, str]]], shape: tuple[str, ...]
) -> tuple[list[dict[str, str]], dict[int, str]]:
    """Return the messages that all chats share, and what is called an input at which place because it differs."""
    differing = [place for place in range(len(shape)) if len({chat[place][1] for chat in chats}) > 1]
    differing = differing or [len(shape) - 1]
    names = {place: "input" if place == differing[-1] else f"message_{place + 1}" for place in differing}
    names = {place: identifier(name) for place, name in names.items()}
    messages = [
        {
            "role": role,
            "content": f"{{{{ {names[place]} }}}}" if place in names else literal(chats[0][place][1]),
        }
        for place, role in enumerate(shape)
    ]
    return messages, names
