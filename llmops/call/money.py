"""What calls cost: before, at most; afterwards, exactly or not known; and what a run may still spend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.definitions.project import Price
from llmops.errors import BudgetError
from llmops.models.tokens import estimate_request_tokens, estimate_tokens
from llmops.records import NOTHING, AnyReply, AnyRequest, Reply, Request, Run, Spent, Usage

if TYPE_CHECKING:
    from llmops.definitions.experiment import Budget as BudgetDefinition
    from llmops.stores.journal import Journal

UNSAID_OUTPUT_TOKENS = 4096
"""What a reply is taken to need at most when no `max_tokens` says so; for the budget only."""


@dataclass
class Budget:
    """What a run may still spend; what is in flight or may have been charged unseen counts at its upper estimate.

    total: what the run has come to so far, of all its carryings out.
    """

    usd: float | None = None
    calls: int | None = None
    total: Spent = NOTHING
    reserved_usd: float = 0.0
    n_reserved: int = 0

    @property
    def n_calls(self) -> int:
        """Requests sent, those in flight included."""
        return self.total.n_calls + self.n_reserved

    @property
    def spent_usd(self) -> float:
        """What was charged; where that is unknown, at its upper estimate."""
        return self.total.usd

    @property
    def n_unpriced(self) -> int:
        """Requests whose cost nobody knows; they are in `spent_usd` at their upper estimate."""
        return self.total.n_unpriced

    def reserve(self, upper_usd: float) -> None:
        """Set money aside for one request.

        Raises BudgetError when it could not be paid even if all in flight cost their upper estimate.
        """
        total = self.total
        if self.calls is not None and self.n_calls + total.n_adrift >= self.calls:
            perhaps = f", {total.n_adrift} of them perhaps never sent" if total.n_adrift else ""
            raise BudgetError(f"the budget of {self.calls} calls is used up{perhaps}")
        if self.usd is not None and total.usd + total.hidden_usd + self.reserved_usd + upper_usd > self.usd:
            hidden = f", {total.hidden_usd:.4f} perhaps charged unseen" if total.hidden_usd > 0 else ""
            raise BudgetError(
                f"the budget of {self.usd:.2f} USD would be passed: {total.usd:.4f} spent{hidden}, "
                f"{self.reserved_usd:.4f} in flight, {upper_usd:.4f} more for the next call at most"
            )
        self.n_reserved += 1
        self.reserved_usd += upper_usd

    def settle(self, upper_usd: float, spent: Spent) -> None:
        """Turn what was set aside into what it came to."""
        self.n_reserved -= 1
        self.reserved_usd -= upper_usd
        self.add(spent)

    def add(self, spent: Spent) -> None:
        """Count what was spent without having been set aside."""
        self.total = self.total.plus(spent)


def cost_of(usage: Usage | None, price: Price | None) -> float | None:
    """Return US dollars; None when the price is unknown or the tokens are only our own estimate."""
    if price is None:
        return None
    if price.input_per_mtok == 0 and price.output_per_mtok == 0:
        return 0.0
    if usage is None or usage.estimated:
        return None
    return (usage.input_tokens * price.input_per_mtok + usage.output_tokens * price.output_per_mtok) / 1e6


def upper_cost(request: AnyRequest, tokens: int, price: Price | None) -> float:
    """Return what a request costs at most: twice the estimated input, and all the output it may give."""
    if price is None:
        return 0.0
    output = 0
    if isinstance(request, Request):
        output = int(request.parameters.get("max_tokens") or UNSAID_OUTPUT_TOKENS)
    return (2 * tokens * price.input_per_mtok + output * price.output_per_mtok) / 1e6


def estimated_usage(request: AnyRequest, reply: AnyReply) -> Usage:
    """Return the tokens of a call by our own count, for a service that gives none."""
    said = 0
    if isinstance(reply, Reply):
        said = estimate_tokens("".join([reply.text, *(call.arguments for call in reply.tool_calls)]))
    return Usage(input_tokens=estimate_request_tokens(request), output_tokens=said, estimated=True)


def spent_budget(asked: BudgetDefinition, run_id: str, journal: Journal) -> Budget:
    """Return the budget of a run, less what it has spent before, also when it was killed."""
    total = journal.account(run_id)
    if total is None:  # nothing was asked in its name: its record says what others paid, or there is none
        known = journal.find_run(run_id)
        total = NOTHING if known is None else _recorded(known)
    return Budget(usd=asked.usd, calls=asked.calls, total=total)


def _recorded(run: Run) -> Spent:
    return Spent(n_calls=run.n_calls, usd=run.cost_usd or 0.0, n_unpriced=int(run.cost_usd is None))
