"""llmops: experiment with prompts and chains as code, gate merges on honest error bars, mirror it all in MLflow.

    prompt -> chain -> run -> score -> record -> compare -> gate -> promote -> serve -> monitor -> curate

The nouns of that flow are here; each step is a module of its own name, as in
`from llmops.compare import compare_variants`. Names are loaded when first used, so that `llmops --help` and
`llmops check` stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmops.definitions.chain import Chain
    from llmops.definitions.dataset import Case, Dataset
    from llmops.definitions.experiment import Experiment
    from llmops.definitions.project import Project
    from llmops.definitions.prompt import Prompt
    from llmops.definitions.workspace import Workspace
    from llmops.errors import LlmopsError
    from llmops.records import Call, Comparison, Figure, Output, Reply, Request, Run, Score, Span

__version__ = "0.1.0"

_HOMES = {
    "llmops.definitions.chain": ("Chain",),
    "llmops.definitions.dataset": ("Case", "Dataset"),
    "llmops.definitions.experiment": ("Experiment",),
    "llmops.definitions.project": ("Project",),
    "llmops.definitions.prompt": ("Prompt",),
    "llmops.definitions.workspace": ("Workspace",),
    "llmops.errors": ("LlmopsError",),
    "llmops.records": ("Call", "Comparison", "Figure", "Output", "Reply", "Request", "Run", "Score", "Span"),
}

__all__ = [
    "Call",
    "Case",
    "Chain",
    "Comparison",
    "Dataset",
    "Experiment",
    "Figure",
    "LlmopsError",
    "Output",
    "Project",
    "Prompt",
    "Reply",
    "Request",
    "Run",
    "Score",
    "Span",
    "Workspace",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'llmops' has no attribute {name!r}")
