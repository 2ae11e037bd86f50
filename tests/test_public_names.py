"""The front door of the package: what it exports, and that it stays light."""

from __future__ import annotations

import subprocess
import sys

import llmops

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
