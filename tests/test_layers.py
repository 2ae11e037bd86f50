"""The house has one direction: imports point up this list, those inside functions and for typing too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "llmops"

LAYERS = (
    "errors",
    "secrets",
    "addresses",
    "definitions",
    "records",
    "stats",
    "stores",
    "models",
    "call",
    "render",
    "evaluators",
    "indexes",
    "steps",
    "check",
    "plan",
    "score",
    "run",
    "compare",
    "report",
    "gate",
    "sync",
    "promote",
    "convert",
    "cli",
    "pytest_plugin",
)

OUTSIDE: dict[str, str | tuple[str, ...]] = {
    "aiohttp": ("models/http_client.py", "models/lean.py", "models/azure_inference.py", "models/resolver.py"),
    "openai": "models/openai_sdk.py",
    "azure": ("models/azure_inference.py", "models/entra.py"),  # the SDK, and who signs in for all of Azure
    "mlflow": "stores/mlflow/",
    "sqlalchemy": ("stores/", "indexes/queries.py"),
    "alembic": "stores/",
    "rich": ("report/", "cli/"),
    "click": "cli/",
    "pytest": "pytest_plugin.py",
    "sklearn": "evaluators/figures.py",
    "jsonschema": "definitions/json_schema.py",
    "pandas": "report/frame.py",
    "psycopg": "stores/postgresql.py",
    "pyarrow": ("definitions/parquet_reader.py", "report/rows.py", "indexes/lance.py"),
    "lancedb": "indexes/lance.py",
    "rouge_score": "evaluators/rouge.py",
    "sacrebleu": "evaluators/translation.py",
    "re2": "definitions/patterns.py",
    "yaml": "definitions/yaml_reader.py",
}

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.lineno, node.module or ""
            if node.module == "llmops":
                yield from ((node.lineno, f"llmops.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up_the_list(path: Path) -> None:
    if path.parent == PACKAGE and path.name in {"__init__.py", "__main__.py"}:
        pytest.skip("the front door sees every room")
    own = layer_of(path)
    assert own in LAYERS, f"{own} has no place in the list"
    for line, name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "llmops" and len(parts) > 1 and parts[1] in {p.stem for p in PACKAGE.iterdir()}:
            assert LAYERS.index(parts[1]) <= LAYERS.index(own), (
                f"{path}:{line} imports {name}, which comes later"
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_outside_service_is_met_in_one_place(path: Path) -> None:
    where = path.relative_to(PACKAGE).as_posix()
    for line, name in imports_of(path):
        home = OUTSIDE.get(name.split(".")[0])
        assert home is None or where.startswith(home), f"{path}:{line} imports {name}, whose home is {home}"
