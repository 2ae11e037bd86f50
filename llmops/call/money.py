"""What calls cost: before, at most; afterwards, exactly or not known; and what a run may still spend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.definitions.project import Price
from llmops.errors import BudgetError
from llmops.models.tokens import estimate_request_tokens, estimate_tokens
from llmops.records import Call, CallState, EmbeddingRequest, Embeddings, Reply, Request, Usage

if TYPE_CHECKING:
    from llmops.definitions.experiment import Budget as BudgetDefinition
    from llmops.definitions.workspace import Workspace
    from llmops.stores.journal import Journal

UNSAID_OUTPUT_TOKENS = 4096
"""What a reply is taken to need at most when no `max_tokens` says so; for the budget only."""


@dataclass
class Budget:
    """What a run may still spend; what is in flight counts at its upper estimate.

    n_unpriced: requests whose cost nobody knows; they are in `spent_usd` at their upper estimate.
    """

    usd: float | None = None
    calls: int | None = None
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    n_calls: int = 0
    n_unpriced: int = 0

    def reserve(self, upper_usd: float) -> None:
        """Set money aside for one request.

        Raises BudgetError when it could not be paid even if all in flight cost their upper estimate.
        """
        if self.calls is not None and self.n_calls >= self.calls:
            raise BudgetError(f"the budget of {self.calls} calls is used up")
        if self.usd is not None and self.spent_usd + self.reserved_usd + upper_usd > self.usd:
            raise BudgetError(
                f"the budget of {self.usd:.2f} USD would be passed: {self.spent_usd:.4f} spent, "
                f"{self.reserved_usd:.4f} in flight, {upper_usd:.4f} more for the next call at most"
            )
        self.n_calls += 1
        self.reserved_usd += upper_usd

    def settle(self, upper_usd: float, cost_usd: float | None) -> None:
        """Turn what was set aside into what it cost; an unknown cost counts at its upper estimate."""
        self.reserved_usd -= upper_usd
        self.spent_usd += upper_usd if cost_usd is None else cost_usd
        self.n_unpriced += cost_usd is None


def cost_of(usage: Usage | None, price: Price | None) -> float | None:
    """Return US dollars; None when the price is unknown or the tokens are only our own estimate."""
    if price is None:
        return None
    if price.input_per_mtok == 0 and price.output_per_mtok == 0:
        return 0.0
    if usage is None or usage.estimated:
        return None
    return (usage.input_tokens * price.input_per_mtok + usage.output_tokens * price.output_per_mtok) / 1e6


def upper_cost(request: Request | EmbeddingRequest, tokens: int, price: Price | None) -> float:
    """Return what a request costs at most: twice the estimated input, and all the output it may give."""
    if price is None:
        return 0.0
    output = 0
    if isinstance(request, Request):
        output = int(request.parameters.get("max_tokens") or UNSAID_OUTPUT_TOKENS)
    return (2 * tokens * price.input_per_mtok + output * price.output_per_mtok) / 1e6


def estimated_usage(request: Request | EmbeddingRequest, reply: Reply | Embeddings) -> Usage:
    """Return the tokens of a call by our own count, for a service that gives none."""
    said = 0
    if isinstance(reply, Reply):
        said = estimate_tokens("".join([reply.text, *(call.arguments for call in reply.tool_calls)]))
    return Usage(input_tokens=estimate_request_tokens(request), output_tokens=said, estimated=True)


def spent_budget(workspace: Workspace, asked: BudgetDefinition, run_id: str, journal: Journal) -> Budget:
    """Return the budget of a run, less what it has spent before.

    Its calls that are newer than its record were made by a carrying out that was killed before it could say what
    it spent. Those without an answer may or may not have left: each counts as one request at its upper estimate.
    """
    budget = Budget(usd=asked.usd, calls=asked.calls)
    known = journal.find_run(run_id)
    if known is None:
        return budget
    budget.n_calls = known.n_calls
    budget.spent_usd = known.cost_usd or 0.0
    budget.n_unpriced = int(known.cost_usd is None)
    models = workspace.project.models
    for call in journal.calls_since(known.finished_at or known.created_at, owner=known.id):
        price = models[call.model].pricing() if call.model in models else None
        if call.state is not CallState.PLANNED:
            _add_lost(budget, call, price)
    return budget


def _add_lost(budget: Budget, call: Call, price: Price | None) -> None:
    upper = upper_cost(call.request, estimate_request_tokens(call.request), price)
    is_free = price is not None and upper == 0
    cost = 0.0 if call.cost_usd is None and is_free else call.cost_usd
    budget.n_calls += max(call.attempts, 1)
    budget.spent_usd += upper if cost is None else cost
    budget.n_unpriced += cost is None
