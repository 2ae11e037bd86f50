"""Where the files of CI lie, and the steps of their jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
ACTION = ROOT / ".github" / "actions" / "llmops-gate"
WORKFLOWS = ROOT / ".github" / "workflows"
STARTED = ROOT / "llmops" / "cli" / "starter" / ".github" / "workflows" / "gate.yml"
ALL = [*sorted(WORKFLOWS.glob("*.yml")), STARTED, ACTION / "action.yml"]


def read(path: Path) -> dict[str, Any]:
    """Return a workflow or action; its triggers are under `on`, which YAML 1.1 takes for true."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {("on" if key is True else key): value for key, value in found.items()}


def workflow(name: str) -> dict[str, Any]:
    return read(WORKFLOWS / f"{name}.yml")


def steps_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of all jobs, or of a composite action."""
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job["steps"]]


def step(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in steps_of(document) if found.get("name") == name)
