"""The front door of the package: what it exports, and that it stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import llmops
from llmops import records

HEAVY = [
    "mlflow",
    "scipy",
    "pandas",
    "sklearn",
    "openai",
    "azure",
    "sqlalchemy",
    "alembic",
    "rich",
    "aiohttp",
]


def test_exported_names_are_sorted_and_there() -> None:
    assert llmops.__all__ == sorted(llmops.__all__)
    for name in llmops.__all__:
        assert getattr(llmops, name).__module__.startswith("llmops."), name


def test_every_record_is_had_from_the_package_and_says_what_it_is() -> None:
    (folder,) = map(Path, records.__path__)
    classes = [
        node
        for path in folder.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 40
    for node in classes:
        assert node.name in records.__all__, f"{node.name} is not exported"
        assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(llmops, "Verdicts")


def test_importing_the_command_line_brings_nothing_heavy() -> None:
    heavy = [*HEAVY, "numpy", "pydantic", "jinja2"]
    code = f"import sys, llmops.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checking_and_rendering_bring_nothing_heavy() -> None:
    code = f"import sys, llmops.check, llmops.cli.render; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
