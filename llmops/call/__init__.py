"""The one path of every model call: request -> reply, paid for once.

`caller` asks, `deployments` are the models it asks, `limits` says when it may, `money` what it costs.
"""

from llmops.call.caller import Answer, Caller, Stopping, call_identity, open_caller
from llmops.call.deployments import Deployment, open_deployments
from llmops.call.limits import Limiter
from llmops.call.money import Budget, cost_of, spent_budget, upper_cost

__all__ = [
    "Answer",
    "Budget",
    "Caller",
    "Deployment",
    "Limiter",
    "Stopping",
    "call_identity",
    "cost_of",
    "open_caller",
    "open_deployments",
    "spent_budget",
    "upper_cost",
]
