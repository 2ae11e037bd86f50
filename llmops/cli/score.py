"""`llmops score`: score a run again, without calling the models under test."""

from __future__ import annotations

import asyncio

import click

from llmops.cli.report import print_run
from llmops.cli.run import give_up, tell_result
from llmops.cli.session import json_option, open_session, say, steady_clock, utc_now


@click.command("score")
@click.argument("run")
@json_option
def command(run: str, as_json: bool) -> int:
    """Score the outputs of RUN with today's evaluators of its experiment; only judges are called.

    RUN is a run's id, or an experiment's name for its latest. A changed evaluator makes a new run of the same
    outputs; an unchanged one leaves nothing to do.
    """
    from llmops.call.carrying import Settings
    from llmops.cli.progress import showing_progress
    from llmops.compare import compare_run
    from llmops.score.rescore import plan_scoring, rescore_run

    session = open_session()
    journal = session.journal(create=False)
    try:
        before = journal.named_run(run)
        planned = plan_scoring(session.workspace, before, journal, utc_now())
        with journal.hold(planned.run.id):
            with showing_progress(planned.run.id) as progress:
                settings = Settings(session.environment, steady_clock(), None, progress, give_up)
                result, n_scored = asyncio.run(rescore_run(session.workspace, planned, journal, settings))
            after = result.run
            if after is before:
                say("nothing to do: the evaluators are those the run was scored with")
            else:
                n_calls = after.n_calls
                called = (
                    f"{n_calls} calls to score, none to a model under test" if n_calls else "nothing called"
                )
                say(f"{n_scored} outputs scored, {called}")
                comparisons = tuple(compare_run(journal, after, now=utc_now()))
                after = after.model_copy(update={"comparisons": comparisons})
                journal.save_run(after)
        print_run(after, journal, as_json=as_json)
    finally:
        journal.close()
    return tell_result(result)
