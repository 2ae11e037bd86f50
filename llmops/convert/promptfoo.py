"""promptfoo configurations: prompts, a dataset of the tests, and an experiment that asks and judges as they did."""

from __future__ import annotations

from typing import Any

from llmops.convert.account import Page
from llmops.convert.job import Job
from llmops.convert.promptfoo_asserts import write_experiment
from llmops.convert.promptfoo_prompts import read_prompts
from llmops.convert.promptfoo_providers import read_variants
from llmops.convert.promptfoo_tests import read_tests
from llmops.errors import DefinitionError

CONFIGURED = ("config", "env", "headers", "provider", "providers", "targets")
_ELSEWHERE = {
    "sharing": "llmops shares nothing",
    "outputPath": "`llmops report --rows FILE` or `--html FILE` writes results",
    "writeLatestResults": "every run is in the journal",
    "commandLineOptions": "options belong to the command line",
    "extensions": "a program; llmops runs none that a configuration brings",
    "nunjucksFilters": "a program; templates have Jinja's filters",
    "derivedMetrics": "a metric of metrics; work it out from `llmops report --rows`",
    "redteam": "llmops attacks nothing yet",
    "tracing": "every step leaves a span anyway",
}
_OPTIONS = {
    "maxConcurrency": "limits.concurrency of a model in llmops.yaml, or `llmops run --concurrency`",
    "delay": "limits.rpm of a model in llmops.yaml",
    "cache": "what is answered is in the journal and never asked twice",
    "timeoutMs": "limits.timeout_s of a model in llmops.yaml",
    "maxEvalTimeMs": "budget.wall_s of the experiment",
    "showProgressBar": "progress is shown on a terminal",
}


def convert(job: Job) -> None:
    """Write prompts, dataset and experiment of one configuration."""
    job.configured = CONFIGURED
    page = job.read_yaml(job.source)
    if not isinstance(page.value, dict):
        raise DefinitionError(page.document.finding((), "a configuration of promptfoo is a mapping"))
    prompts, inputs = read_prompts(job, page)
    more = _top(page)
    variants = read_variants(job, page, [prompt.name for prompt in prompts])
    tests = read_tests(job, page)
    if not tests:
        return
    write_experiment(job, tests, inputs, variants, more)


def _top(page: Page) -> dict[str, Any]:
    """Return what the experiment says of itself, and settle the keys that stand for themselves."""
    value = page.value
    found: dict[str, Any] = {}
    if isinstance(value.get("description"), str):
        found["description"] = value["description"]
        page.keep(("description",), "description of the experiment")
    if "tags" in value:
        found["x-tags"] = value["tags"]
        page.keep(("tags",), "x-tags, which llmops does not read")
    options = value.get("evaluateOptions")
    for key, given in options.items() if isinstance(options, dict) else ():
        place = ("evaluateOptions", key)
        if key == "repeat" and isinstance(given, int) and 1 <= given <= 1000:
            found["repeats"] = given
            page.keep(place, "repeats")
        elif key in _OPTIONS:
            page.drop(place, _OPTIONS[key])
    for key, why in _ELSEWHERE.items():
        page.drop((key,), why)
    environment = value.get("env")
    for name in environment if isinstance(environment, dict) else ():
        page.drop(
            ("env", name), "the value is not copied: put it into the environment, or .env beside llmops.yaml"
        )
    return found
