"""The files of other tools that the tests convert: written for them, in the shape of what is out there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmops.convert import Converted, convert_file
from llmops.convert.account import Note
from llmops.definitions.project import ModelDefinition, Project

FILES = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Sample:
    """One file to convert, and what is to be run of it. runs: arguments of `llmops run`."""

    path: str
    format: str
    runs: tuple[str, ...] = ()


SAMPLES = (
    Sample(
        "prompty/returns_desk.prompty",
        "prompty",
        (
            "prompts/returns_desk",
            "--input=customer=Mia",
            "--input=days=3",
            '--input=order={"item": "tent"}',
            "--input=history=[]",
            '--input=question="May I?"',
        ),
    ),
    Sample(
        "prompty/weather.prompty",
        "prompty",
        ("prompts/weather", "--input=place=Rome", "--input=days=2", "--input=photo=1"),
    ),
    Sample("prompty/shortest.prompty", "prompty", ("prompts/shortest", '--input=name="Ada"')),
    Sample("github/summary.prompt.yml", "github", ("experiments/summary",)),
    Sample("promptfoo/promptfooconfig.yaml", "promptfoo", ("experiments/promptfoo",)),
    Sample("promptflow/flow.dag.yaml", "promptflow", ("experiments/promptflow",)),
    Sample("promptflow_tools/flow.dag.yaml", "promptflow"),
    Sample("evals/capitals.yaml", "openai-evals", ("experiments/capitals",)),
    Sample("evals/shop/mixed.jsonl", "openai-evals", ("experiments/mixed",)),
    Sample("evals/shop/rivers.jsonl", "openai-evals", ("experiments/rivers",)),
)


def project(**models: Mapping[str, Any]) -> Project:
    """Return a project with the embedded model, and others beside it."""
    found = {"default": {"provider": "embedded"}, **models}
    return Project(models={name: ModelDefinition.model_validate(block) for name, block in found.items()})


def convert(sample: str, **options: Any) -> Converted:
    """Convert one of the files."""
    return convert_file(FILES / sample, project(), **options)


def copied(sample: str, into: Path) -> Path:
    """Return a copy of a sample's whole folder, to be changed."""
    folder = into / "copy" / sample.partition("/")[0]
    if not folder.exists():
        shutil.copytree(FILES / sample.partition("/")[0], folder)
    return folder / sample.partition("/")[2]


def note(converted: Converted, key: str, path: str = "") -> Note:
    """Return what became of one key."""
    found = [each for each in converted.record.notes if each.key == key and each.path.endswith(path)]
    assert len(found) == 1, f"{key}: {found}"
    return found[0]


def written(converted: Converted, path: str) -> Any:
    """Return the value of a YAML or the rows of a JSONL that was written."""
    text = converted.texts[path]
    return (
        [json.loads(line) for line in text.splitlines()] if path.endswith(".jsonl") else yaml.safe_load(text)
    )


# --- what stands in a file, found without the package ------------------------------------------------------------


def keys_in(path: Path) -> dict[str, int]:
    """Return every leaf key of a file with its line, by PyYAML's nodes; a text is one leaf."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".yaml", ".yml", ".json"}:
        return _merged(_walk(yaml.compose(text, yaml.SafeLoader), "", 0, 1))
    if path.suffix == ".prompty":
        if not text.startswith("---"):
            return {"(template)": 1}
        head = text.split("---\n")[1]
        body = {"(template)": head.count("\n") + 3}
        return _merged(_walk(yaml.compose(head, yaml.SafeLoader), "", 1, 1)) | body
    if path.suffix == ".jsonl":
        lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        return {
            key: number
            for place, (number, line) in enumerate(lines)
            for key, _ in _walk(yaml.compose(line, yaml.SafeLoader), f"[{place}]", 0, 1)
        }
    if path.suffix == ".csv":
        header, *rows = text.splitlines()
        return {f"[{n}].{name}": n + 2 for n in range(len(rows)) for name in header.split(",")}
    return {"(all of it)": 1}


def _merged(pairs: Iterator[tuple[str, int]]) -> dict[str, int]:
    return dict(pairs)


def _walk(node: yaml.Node | None, place: str, offset: int, line: int) -> Iterator[tuple[str, int]]:
    """Yield key and line of each leaf; an entry stands at its key, an item at itself."""
    if isinstance(node, yaml.MappingNode) and node.value:
        for key, value in node.value:
            name = f"{place}.{key.value}" if place else key.value
            yield from _walk(value, name, offset, key.start_mark.line + 1 + offset)
    elif isinstance(node, yaml.SequenceNode) and node.value:
        for index, item in enumerate(node.value):
            yield from _walk(item, f"{place}[{index}]", offset, item.start_mark.line + 1 + offset)
    else:
        yield place or "(all of it)", line
