"""Which step of a chain its wrong cases come from: of each, the first step whose own score failed.

Reads the scores of one variant and the order of its steps; what a score looks at, and from where on a case passes, is
said by the experiment's evaluators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from llmops.evaluators.bound import BoundEvaluator, lower_is_better
from llmops.records import Blame, StepBlame

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Means(Protocol):
    """Where the scores of a variant are read from: its sheet."""

    def case_means(self, name: str) -> npt.NDArray[np.float64]:
        """Return the mean of each case over its repeats, NaN where there is none."""

    def case_ids(self, chosen: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        """Return the ids of the cases chosen."""


def find_blame(means: Means, evaluators: Sequence[BoundEvaluator], steps: Sequence[str]) -> Blame | None:
    """Return which steps are to blame; None where no step has a score of its own, or no final score can fail.

    The final score is that of the first evaluator that looks at the whole output or at the last step.

    steps: of the chain, each after those it needs.
    """
    finals = (each for each in evaluators if each.use.step in (None, *steps[-1:]))
    final = next((each for each in finals if each.pass_at is not None), None)
    own = {step: [each for each in evaluators if each.use.step == step] for step in steps}
    if final is None or final.pass_at is None or not any(own.values()):
        return None
    import numpy as np

    wrong = _failed(means, final)
    n_wrong = int(wrong.sum())
    left, found = wrong, []
    for step, judges in own.items():
        if judges:
            blamed = left & np.logical_or.reduce([_failed(means, each) for each in judges])
            left = left & ~blamed
            found.append(_blame(means, step, blamed, n_wrong))
    if left.any():
        found.append(_blame(means, None, left, n_wrong))
    return Blame(
        metric=final.name,
        pass_at=final.pass_at,
        lower_is_better=lower_is_better(final.evaluator),
        n=int((~np.isnan(means.case_means(final.name))).sum()),
        n_wrong=n_wrong,
        steps=tuple(found),
    )


def _failed(means: Means, evaluator: BoundEvaluator) -> npt.NDArray[np.bool_]:
    """Return of each case whether its score is short of passing; a score that is absent, or has no best, is not."""
    values = means.case_means(evaluator.name)
    bar = math.nan if evaluator.pass_at is None else evaluator.pass_at
    return values > bar if lower_is_better(evaluator.evaluator) else values < bar


def _blame(means: Means, step: str | None, blamed: npt.NDArray[np.bool_], n_wrong: int) -> StepBlame:
    ids = means.case_ids(blamed)
    return StepBlame(step=step, share=len(ids) / n_wrong if n_wrong else 0.0, case_ids=ids)
