"""JSON Schemas of the files people write, for their editors: made from the models, kept in `llmops/schemas/`.

They say less than `llmops check`, which also knows what files refer to and which keys exclude each other.
"""

from __future__ import annotations

import json
from typing import Any

from llmops.definitions.base import Definition
from llmops.definitions.project import Project
from llmops.definitions.workspace import MODELS


def editor_schema(kind: str) -> str:
    """Return the JSON Schema of a kind of file, `project` for llmops.yaml, as text that ends in a newline."""
    model: type[Definition] = Project if kind == "project" else MODELS[kind]  # type: ignore[index]
    schema = _with_notes(model.model_json_schema(by_alias=True))
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps({"$schema": dialect, **schema}, indent=2, ensure_ascii=False) + "\n"


def _with_notes(schema: Any) -> Any:
    """Allow `x-` keys where other unknown keys are refused, as the reader does; drop titles: they repeat keys."""
    if isinstance(schema, list):
        return [_with_notes(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _with_notes(value) for key, value in schema.items() if (key, type(value)) != ("title", str)}
    if schema.get("additionalProperties") is False:
        kept["patternProperties"] = {"^x-": {}}
    return kept
