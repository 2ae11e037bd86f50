"""A real git repository whose branch changes a prompt that `llmops gate` judges against main, on `embedded`."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

from llmops.records import Verdict
from llmops.stores.journal import Journal, open_journal
from tests.cli.inside import Done, llmops_inside
from tests.workplace import COLOURS, STORE, jsonl

PROMPT = "prompts/sort.prompt.yaml"
EXPERIMENT = "experiments/sort.experiment.yaml"
FILES = {
    "llmops.yaml": "",
    "README.md": "# Tickets\n",
    ".gitignore": ".llmops/\nmlflow.db*\nleft/\n",
    PROMPT: """description: A label for a ticket.
inputs: {ticket: string}
messages:
  - role: system
    content: |
      Answer with one word only: red, green, blue.
  - role: user
    content: "{{ ticket }}"
""",
    "datasets/tickets.dataset.yaml": """inputs: {ticket: string}
expected: {type: string}
slices: {by: metadata.slice}
""",
    "datasets/tickets.jsonl": jsonl(
        [
            {
                "id": f"c{number:03}",
                "inputs": {"ticket": f"lamp {number} is {COLOURS[number % 3]}"},
                "expected": COLOURS[number % 3],
                "metadata": {"slice": "edge" if number % 4 == 0 else "plain"},
            }
            for number in range(90)
        ]
    ),
    EXPERIMENT: """dataset: tickets
variants:
  plain: {prompt: sort}
evaluators: [exact_match]
baseline: git:main
gates:
  - {metric: exact_match, not_worse_than: baseline, margin: 0.05}
  - {metric: error_rate, at_most: 0.01}
""",
}
HARM = ("red, green, blue.", "red, purple, blue.")
NEUTRAL = ("Answer with one word", "Reply with one word")


class Repository:
    """A project at `root`, its first commit on main and a branch checked out."""

    def __init__(self, root: Path, **files: str) -> None:
        self.root = root
        for name, text in (FILES | files).items():
            self.write(name, text)
        self.git("init", "-q", "-b", "main")
        self.commit()
        self.git("switch", "-q", "-c", "change")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def edit(self, old: str, new: str, name: str = PROMPT) -> None:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    def git(self, *arguments: str) -> str:
        who = {
            f"GIT_{role}_{what}": "someone" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "GIT_CONFIG_NOSYSTEM": "1", **who}
        command = ["git", "-C", str(self.root), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "a change")

    def gate(self, *arguments: str, more: dict[str, str] | None = None) -> Done:
        return llmops_inside("gate", *arguments, "--no-sync", cwd=self.root, more=more)

    def verdict(self, *arguments: str) -> tuple[Verdict, Done]:
        """Judge the one experiment there is; its verdict, and what the command said."""
        done = self.gate("sort", "--json", *arguments)
        assert done.stdout, done.stderr
        return Verdict.model_validate(json.loads(done.stdout)), done

    def left(self, name: str) -> Path:
        """Return a place for a file that the gate writes, which git does not see."""
        folder = self.root / "left"
        folder.mkdir(exist_ok=True)
        return folder / name

    def journal(self) -> closing[Journal]:
        return closing(open_journal(STORE, root=self.root, create=False, environment={}))
