"""Figures over classes, worked out by scikit-learn.

Importing scikit-learn takes longer than a small experiment, and its figures are wanted only at the end. So a run
starts this module as a process of its own while its outputs still arrive; without one it is imported where it is
needed. Whoever starts it speaks JSON with it, one line for a question and one for its answer.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from llmops.secrets import without_secrets


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """What codes of truth and of what was found come to; label codes run from 0, the last code is of no label.

    macro_f1: over the labels that some case expects. precision, recall, f1: by label code, None where no case
    tells. expected: cases that expect each label. confusion: by truth, by found, counts; shape (n + 1, n + 1).
    """

    accuracy: float
    macro_f1: float
    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]
    expected: list[int]
    confusion: list[list[int]]


def class_figures(truth: Sequence[int], found: Sequence[int], n_labels: int) -> ClassFigures:
    """Return the figures of one code each for truth and found a case, in the same order; at least one case."""
    import numpy as np
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

    codes = range(n_labels)
    precision, recall, f1, expected = precision_recall_fscore_support(
        truth, found, labels=codes, average=None, zero_division=np.nan
    )
    return ClassFigures(
        accuracy=float(accuracy_score(truth, found)),
        macro_f1=float(f1_score(truth, found, labels=sorted(set(truth)), average="macro", zero_division=0)),
        precision=_known(precision),
        recall=_known(recall),
        f1=_known(f1),
        expected=[int(n) for n in expected],
        confusion=confusion_matrix(truth, found, labels=range(n_labels + 1)).tolist(),
    )


def _known(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]


class Aside:
    """`class_figures` in a process of its own, started before its answers are wanted."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llmops.evaluators.figures"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=without_secrets(os.environ),
        )

    def figures(self, truth: Sequence[int], found: Sequence[int], n_labels: int) -> ClassFigures:
        """Return what `class_figures` returns; from here when the process has gone."""
        question = json.dumps([list(truth), list(found), n_labels])
        try:
            assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - asked for
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        return ClassFigures(**json.loads(answer)) if answer else class_figures(truth, found, n_labels)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Answer one question a line until there are no more."""
    import sklearn.metrics  # noqa: F401 - what this process is for: having it ready

    for line in sys.stdin:
        print(json.dumps(asdict(class_figures(*json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
