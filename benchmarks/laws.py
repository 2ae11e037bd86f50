"""Worlds of which the truth is known: how scores of a baseline and a candidate come about, for `simulate`.

Each law draws one experiment. `runs` are single runs, as the bare rules see them; `baseline` and `candidate` are what
our gate gets, history and repeats averaged; `cost` is runs a case over two, the price of one run a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmops.stats.repeats import HISTORY, flaky_repeats
from llmops.stats.runs import Runs

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
NOISE = 0.10
"""Share of cases that flip between two equal variants, half of them each way."""


@dataclass(frozen=True)
class Drawn:
    """One experiment on n cases, each metric with its scores, shape (metrics, n)."""

    baseline: Floats
    candidate: Floats
    runs: tuple[Floats, Floats]
    clusters: Codes | None = None
    cost: Floats | None = None
    behind: tuple[Runs, Runs] | None = None


@dataclass(frozen=True)
class Binary:
    """0/1 scores, one run a side; so many regressed on top of the noise. missing: share whose candidate is lost.

    Lost scores are those of cases that got worse, where there are any: the worst that a fault can do.
    """

    n: int
    regression: float = 0.0
    noise: float = NOISE
    metrics: int = 1
    missing: float = 0.0

    def __str__(self) -> str:
        extra = [
            f"{self.metrics} metrics" if self.metrics > 1 else "",
            f"{100 * self.missing:g} % missing" if self.missing else "",
            "no gains" if self.noise == 0 else "",
        ]
        return ", ".join(filter(None, (f"{self.n} pass/fail", *extra, _worse(self.regression))))

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw one experiment."""
        shares = [self.noise / 2 + self.regression, self.noise / 2]
        uniform = rng.random((self.metrics, self.n))
        is_lost, is_gained = uniform < shares[0], uniform > 1 - shares[1]
        baseline = np.where(is_lost, 1.0, np.where(is_gained, 0.0, rng.random(uniform.shape) < 0.8))
        candidate = np.where(is_lost, 0.0, np.where(is_gained, 1.0, baseline))
        runs = baseline, candidate.copy()
        n_missing = round(self.missing * self.n)
        if n_missing:
            worst = np.argsort(candidate - baseline, axis=1, kind="stable")[:, :n_missing]
            np.put_along_axis(candidate, worst, np.nan, axis=1)
        return Drawn(baseline, candidate, runs)


@dataclass(frozen=True)
class Collapse:
    """A rare collapse from the best score to the worst, while the others gain a little, or nothing."""

    n: int
    regression: float
    gain: float = 0.0

    def __str__(self) -> str:
        return f"{self.n} rare collapses{', small gains' if self.gain else ''}{_worse(self.regression, ', ')}"

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw one experiment."""
        before = np.full((1, self.n), 1 - self.gain)
        after = np.where(rng.random((1, self.n)) < self.regression + self.gain, 0.0, 1.0)
        return Drawn(before, after, (before, after))


@dataclass(frozen=True)
class Levels:
    """A judge of five levels, a step up or down in every fifth case; the regression in further steps down."""

    n: int
    regression: float = 0.0

    def __str__(self) -> str:
        return f"{self.n} five-level judge{_worse(self.regression, ', ')}"

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw one experiment."""
        before = rng.choice([0.25, 0.5, 0.75], (1, self.n), p=[0.1, 0.3, 0.6])
        fall = 0.1 + 4 * self.regression
        after = before + rng.choice([-0.25, 0.0, 0.25], (1, self.n), p=[fall, 0.9 - fall, 0.1])
        return Drawn(before, after, (before, after))


@dataclass(frozen=True)
class Documents:
    """Cases in clusters; each document got better or worse as a whole by so much, by the toss of a coin."""

    sizes: Sequence[int]
    regression: float = 0.0
    effect: float = 0.20

    def __str__(self) -> str:
        sizes = f"{min(self.sizes)}-{max(self.sizes)}" if len(set(self.sizes)) > 1 else f"{self.sizes[0]}"
        return f"{len(self.sizes)} documents x {sizes}{_worse(self.regression, ', ')}"

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw one experiment."""
        clusters = np.repeat(np.arange(len(self.sizes)), self.sizes)
        effects = rng.choice([-self.effect, self.effect], len(self.sizes))[clusters]
        loss = NOISE / 2 + self.regression + np.maximum(0, -effects)
        gain = NOISE / 2 + np.maximum(0, effects)
        uniform = rng.random(clusters.size)
        difference = np.where(uniform < loss, -1.0, np.where(uniform > 1 - gain, 1.0, 0.0))
        before = np.where(difference < 0, 1.0, 0.0)[np.newaxis]
        after = before + difference
        return Drawn(before, after, (before, after), clusters)


@dataclass(frozen=True)
class Flaky:
    """70 % of the cases always right, 10 % always wrong, 20 % pass in 5 to 95 %; the baseline has a history of 8 runs.

    A regression makes every pass that much rarer, in proportion; or, `collapses`, some cases that always passed fail.
    """

    n: int
    regression: float = 0.0
    collapses: bool = False

    def __str__(self) -> str:
        how = "collapse" if self.collapses else "whole design"
        return f"{self.n} flaky, {how}{_worse(self.regression, ', ')}"

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw one experiment."""
        kind = rng.random(self.n)
        before = np.where(kind < 0.7, 1.0, np.where(kind < 0.8, 0.0, rng.uniform(0.05, 0.95, self.n)))
        after = before * (1 - self.regression / 0.8)
        if self.collapses:
            after = np.where((kind < 0.7) & (rng.random(self.n) < self.regression / 0.7), 0.0, before)
        return _with_history(before, after, rng)


@dataclass(frozen=True)
class Hard:
    """Cases that all pass as rarely, or as often, on both sides; the baseline has a history of 8 runs."""

    n: int
    share: float
    regression: float = 0.0

    def __str__(self) -> str:
        return f"{self.n} at {100 * self.share:g} % with history"

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw one experiment."""
        shares = np.full(self.n, self.share)
        return _with_history(shares, shares - self.regression, rng)


def _with_history(before: Floats, after: Floats, rng: np.random.Generator) -> Drawn:
    """Draw 8 stored runs of the baseline, the candidate's with what is flaky repeated, and one fresh run of each."""
    stored = (rng.random((before.size, HISTORY)) < before[:, np.newaxis]).astype(float)
    history = stored.mean(axis=1)
    repeats = flaky_repeats(history)
    places = np.repeat(np.arange(before.size), repeats)
    tried = Runs(places, (rng.random(places.size) < after[places]).astype(float))
    runs = tuple(rng.binomial(1, shares)[np.newaxis].astype(float) for shares in (before, after))
    return Drawn(
        history[np.newaxis],
        tried.means(before.size)[np.newaxis],
        (runs[0], runs[1]),
        cost=repeats / 2,
        behind=(Runs.of(list(stored)), tried),
    )


Law = Binary | Collapse | Levels | Documents | Flaky | Hard


def _worse(regression: float, before: str = "") -> str:
    return f"{before}true -{100 * regression:g}" if regression else ""
