"""`llmops promote`: let an alias point at what passed, or take it back; the file first, then MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from llmops.cli.exits import Exit
from llmops.cli.session import Session, complete_names, json_option, open_session, print_record, say, utc_now
from llmops.cli.sync import STALL_S
from llmops.definitions.reference import FOLDERS
from llmops.definitions.release import PATH, STAGES, Stage
from llmops.errors import LlmopsError, UsageError

if TYPE_CHECKING:
    from llmops.definitions.release import Release
    from llmops.promote import Moved, Order
    from llmops.promote.projection import Projected
    from llmops.stores.mlflow import MlflowStore


@click.command("promote")
@click.argument("name", shell_complete=complete_names("prompt", "chain"))
@click.option("--to", "alias", required=True, metavar="ALIAS", help="The alias to move: production.")
@click.option("--variant", metavar="V", help="The variant, or EXPERIMENT:VARIANT, where several passed.")
@click.option(
    "--stage",
    type=click.Choice(list(STAGES)),
    help="How far it is rolled out; everyone unless given. supervised: people approve every output.",
)
@click.option("--reason", metavar="TEXT", help="Why; what the verdict says unless given.")
@click.option("--approver", metavar="NAME", help="Who approves; whoever git says you are unless given.")
@click.option("--rollback", "back", flag_value="rollback", help="Go to the release before; needs --reason.")
@click.option("--repair", "back", flag_value="repair", help="Only let MLflow's alias follow the file again.")
@json_option
def command(
    name: str,
    alias: str,
    variant: str | None,
    stage: Stage | None,
    reason: str | None,
    approver: str | None,
    back: str | None,
    as_json: bool,
) -> int:
    """Let ALIAS point at the prompt or chain NAME, with the model and parameters that passed.

    It needs a verdict that is a pass on exactly what stands in the files now. What it stood on is added to
    experiments/releases.jsonl, which belongs into git; MLflow's alias follows. Exits 1 when nothing allows it or
    MLflow's alias is not what the file says, 3 when MLflow is not there.
    """
    from llmops.promote import Order

    session = open_session()
    kind, bare = session.target(name, ("prompt", "chain"))
    order = Order(kind, bare, alias, variant, stage or "everyone", reason, approver)
    if back and (variant or stage):
        raise UsageError(f"--{back} takes what was released before: leave out --variant and --stage")
    moved = _moved(session, order, back)
    projected, problem = _projected(session, moved)
    if as_json:
        print_record(_record(moved, projected, problem))
    else:
        _print(moved, projected, problem)
    if problem:
        return Exit.INCOMPLETE
    return Exit.FAILED if projected and projected.drift else Exit.DONE


def _moved(session: Session, order: Order, back: str | None) -> Moved:
    from llmops.promote import Moved, find_release, promote, roll_back

    if back == "repair":
        release = find_release(session.workspace, order)
        return Moved(release, release, is_new=False)
    if back == "rollback":
        return roll_back(session.workspace, order, now=utc_now())
    with closing(session.journal(create=False)) as journal:
        return promote(session.workspace, journal, order, now=utc_now())


# --- MLflow -------------------------------------------------------------------------------------------------


@contextmanager
def opened_mlflow(session: Session) -> Iterator[MlflowStore]:
    """Give the project's MLflow, open; StoreError within seconds when nobody answers."""
    from llmops.stores import tracking

    uri = tracking.resolve_uri(session.tracking_uri, root=session.root, environment=session.environment)
    tracking.check_answers(uri, STALL_S)  # before seconds go into importing MLflow
    from llmops.stores.mlflow import open_mlflow

    with closing(open_mlflow(uri, environment=session.environment)) as store:
        yield store


def _projected(session: Session, moved: Moved) -> tuple[Projected | None, str | None]:
    """Let MLflow follow, and return what it has then, or why it could not; the release stands either way."""
    from llmops.promote.projection import find_drift, project_release

    try:
        with opened_mlflow(session) as store:
            before = moved.before and find_drift(session.workspace, store, moved.before)
            if before and before.drift and before.where:
                say(f"note: MLflow had drifted from {PATH}: {before.drift}")
            return project_release(session.workspace, store, moved.release), None
    except LlmopsError as error:
        return None, str(error)


# --- what is said -------------------------------------------------------------------------------------------


def _record(moved: Moved, projected: Projected | None, problem: str | None) -> dict[str, Any]:
    def dumped(release: Release | None) -> Any:
        return release and release.model_dump(mode="json")

    return {
        "release": dumped(moved.release),
        "before": dumped(moved.before),
        "is_new": moved.is_new,
        "mlflow": {
            "where": projected.where if projected else None,
            "drift": projected.drift if projected else None,
            "error": problem,
        },
    }


def _print(moved: Moved, projected: Projected | None, problem: str | None) -> None:
    from llmops.definitions.base import short
    from llmops.report.texts import printable

    release, before = moved.release, moved.before
    name = f"{FOLDERS[release.kind]}/{release.name}"
    was = f", before {short(before.identity)}" if before is not None and moved.is_new else ""
    verb = "is" if moved.is_new else "was already"
    click.echo(printable(f"{name}@{release.alias} {verb} {_version(release)}{was}"))
    for line in _told(release) if moved.is_new else ():
        click.echo(printable(f"    {line}"))
    if moved.is_new:
        click.echo(f"    written to {PATH}: commit it")
    if projected is not None and projected.drift is None:
        click.echo(printable(f"    in MLflow: {projected.where}"))
    if projected is not None and projected.drift is not None:
        say(printable(f"MLflow is not what {PATH} says: {projected.drift}"))
    if problem:
        say(printable(f"not in MLflow yet: {problem}"))
        say(f"    `llmops promote {name} --to {release.alias} --repair` does it later")


def _version(release: Release) -> str:
    from llmops.definitions.base import short

    return f"{short(release.identity)} on {release.model}" if release.model else short(release.identity)


def _told(release: Release) -> Iterator[str]:
    """Yield what a new line says of itself."""
    from llmops.definitions.release import AuditedRelease

    if not isinstance(release, AuditedRelease):
        return
    yield f"stage: {release.stage} ({STAGES[release.stage]})"
    yield f"reason: {release.reason}"
    yield f"by {release.author}, approved by {release.approver}"
    if release.evidence is not None:
        yield f"on verdict {release.evidence.verdict[:12]} on run {release.evidence.run}"
