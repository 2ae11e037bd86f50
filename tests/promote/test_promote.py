"""What passed as it stands in the files is released; nothing else is, and every release is written down for good."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from llmops.check import check_workspace
from llmops.definitions.release import AuditedRelease, Release, read_releases
from llmops.errors import (
    DefinitionError,
    EvidenceError,
    InconclusiveError,
    LlmopsError,
    StoreError,
    StoreHeldError,
    UsageError,
)
from llmops.promote import Moved, Order, find_release
from llmops.records import Outcome, RunStatus
from llmops.steps import open_program
from llmops.steps.overrides import Overrides
from llmops.stores.releases import replace_releases
from tests.promoted import BOB, CHAIN, Scene, gate_of, utc_now

TWO = """
dataset: tickets
variants:
  plain: {prompt: sort}
  warm: {prompt: sort, parameters: {temperature: 0.5}}
  turned: {prompt: sort, set: {parameters.temperature: 0.9}}
evaluators: [exact_match]
"""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def audited(moved: Moved) -> AuditedRelease:
    assert isinstance(moved.release, AuditedRelease)
    return moved.release


# --- what is released -------------------------------------------------------------------------------------------


def test_what_passed_is_what_the_alias_then_means(scene: Scene) -> None:
    verdict = scene.pass_gate()
    release = audited(scene.promote(stage="staff", reason="it answers in one word"))
    workspace = scene.workspace()
    resolved = workspace.resolve("prompt", "sort@production")
    program = open_program(resolved, Overrides(), seed=0)
    (candidate,) = verdict.candidates
    assert program.identity == candidate.candidate.identity
    assert (release.stage, release.reason, release.approver) == ("staff", "it answers in one word", BOB)
    assert release.author == "Ann Author <ann@example.invalid>"
    assert release.commit == scene.git("rev-parse", "HEAD")
    evidence = release.evidence
    assert evidence is not None
    assert (evidence.verdict, evidence.run, evidence.outcome) == (verdict.id, verdict.run_id, "pass")
    assert evidence.dataset_version == verdict.dataset.version
    assert evidence.evaluators == {each.name: each.identity for each in verdict.evaluators}
    assert evidence.policy["on_inconclusive"] == "warn"
    assert evidence.policy["promotion.max_age_days"] == "7"
    assert check_workspace(workspace) == []


def test_a_chain_is_released_with_the_model_its_variant_names(scene: Scene) -> None:
    scene.write("chains/label.chain.yaml", CHAIN)
    scene.edit(
        "plain: {prompt: sort}", "plain: {chain: label, model: default}", "experiments/sort.experiment.yaml"
    )
    verdict = scene.pass_gate()
    release = audited(scene.promote(kind="chain", name="label"))
    assert (release.kind, release.model) == ("chain", "default")
    program = open_program(scene.workspace().resolve("chain", "label@production"), Overrides(), seed=0)
    assert program.identity == verdict.candidates[0].candidate.identity


def test_promoting_what_is_in_force_writes_nothing_but_another_stage_is_a_release(scene: Scene) -> None:
    scene.pass_gate()
    first = scene.promote(stage="staff")
    before = scene.releases.read_bytes()
    again = scene.promote(stage="staff")
    assert (again.is_new, again.release) == (False, first.release)
    assert scene.releases.read_bytes() == before
    assert scene.promote(stage="everyone").is_new


def test_a_release_stays_what_it_was_when_the_files_go_on(scene: Scene) -> None:
    scene.pass_gate()
    released = scene.promote().release
    scene.edit("one word only", "a single word")
    scene.commit()
    found = scene.workspace().resolve("prompt", "sort@production")
    assert found.workspace.identity("prompt", "sort") == released.identity


def test_no_secret_gets_into_the_file(scene: Scene) -> None:
    scene.pass_gate()
    scene.promote(reason="see https://bob:hunter2-hunter2@example.invalid/x")
    assert b"hunter2" not in scene.releases.read_bytes()
    assert len(read_releases(scene.releases.read_bytes())) == 1


# --- what is not ------------------------------------------------------------------------------------------------


def refused(scene: Scene, error: type[LlmopsError], match: str, **options: Any) -> None:
    with pytest.raises(error, match=match):
        scene.promote(**options)
    assert not scene.releases.exists()


@pytest.mark.parametrize(
    ("outcome", "error"), [(Outcome.FAIL, EvidenceError), (Outcome.INCONCLUSIVE, InconclusiveError)]
)
def test_only_a_pass_is_released(scene: Scene, outcome: Outcome, error: type[LlmopsError]) -> None:
    run = scene.run()
    scene.judge(run)
    scene.judge(run, outcome)
    refused(scene, error, f"is {outcome} .every gate says {outcome}.: `llmops gate sort`")


CHANGES: dict[str, tuple[Callable[[Scene], None], str]] = {
    "prompt": (lambda s: s.edit("one word", "a word"), "prompts/sort, its model or its parameters changed"),
    "model": (
        lambda s: s.write("llmops.yaml", "models: {default: {provider: embedded, model: other}}\n"),
        "prompts/sort, its model or its parameters changed",
    ),
    "parameters": (
        lambda s: s.edit(
            "prompt: sort}", "prompt: sort, parameters: {seed: 1}}", "experiments/sort.experiment.yaml"
        ),
        "prompts/sort, its model or its parameters changed",
    ),
    "dataset": (lambda s: s.edit("is red", "is so red", "datasets/tickets.jsonl"), "the dataset changed"),
    "evaluators": (
        lambda s: s.edit("[exact_match]", "[exact_match, contains]", "experiments/sort.experiment.yaml"),
        "an evaluator changed",
    ),
    "gate": (lambda s: s.edit("0.2", "0.3", "experiments/sort.experiment.yaml"), "a gate changed"),
    "variant": (
        lambda s: s.edit("plain:", "simple:", "experiments/sort.experiment.yaml"),
        "is not about this variant",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_evidence_for_something_else_releases_nothing(scene: Scene, what: str) -> None:
    scene.edit("is", "is red and", "datasets/tickets.jsonl")
    scene.pass_gate()
    change, told = CHANGES[what]
    change(scene)
    scene.commit()
    refused(scene, EvidenceError, told)


def test_evidence_may_not_be_older_than_the_project_says(scene: Scene) -> None:
    scene.write("llmops.yaml", "promotion: {max_age_days: 2}\n")
    scene.pass_gate()
    refused(scene, EvidenceError, "more than 2 days old", now=utc_now() + timedelta(days=2, minutes=1))
    assert scene.promote(now=utc_now() + timedelta(days=2, minutes=-1)).is_new


def test_a_replay_releases_nothing_and_hides_no_verdict_of_models(scene: Scene) -> None:
    run = scene.run()
    scene.judge(run, replayed="a" * 64)
    refused(scene, EvidenceError, "a replay never promotes")
    scene.judge(run)
    scene.judge(run, Outcome.FAIL, replayed="a" * 64)
    assert scene.promote().is_new


def test_a_run_in_part_releases_nothing(scene: Scene) -> None:
    run = scene.run(limit=3)
    assert run.status is RunStatus.PARTIAL
    scene.judge(run)
    refused(scene, EvidenceError, "is partial, not complete")
    scene.judge(run.model_copy(update={"id": "sort-elsewhere"}))
    refused(scene, EvidenceError, "sort-elsewhere that was judged is not in this store")


def test_without_a_verdict_or_an_experiment_nothing_is_released(scene: Scene) -> None:
    scene.run()
    refused(scene, EvidenceError, "sort:plain: no verdict yet: `llmops gate sort`")
    scene.write("prompts/lonely.prompt.yaml", "messages: [{role: user, content: hello}]\n")
    refused(scene, EvidenceError, "no experiment tries prompt lonely", name="lonely")


def test_an_experiment_that_speaks_against_it_counts_too(scene: Scene) -> None:
    scene.pass_gate()
    scene.write(
        "experiments/safety.experiment.yaml", (scene.root / "experiments/sort.experiment.yaml").read_text()
    )
    scene.judge(scene.run("safety"), Outcome.FAIL)
    refused(scene, EvidenceError, "safety:plain: the verdict .* is fail")


def test_where_several_passed_one_is_named(scene: Scene) -> None:
    scene.write("experiments/sort.experiment.yaml", TWO)
    scene.pass_gate()
    refused(scene, UsageError, "--variant; sort:plain, sort:warm$")
    refused(scene, UsageError, r"called 'wram'; did you mean 'warm'\?", variant="wram")
    assert scene.promote(variant="sort:warm").release.parameters == {"temperature": 0.5}
    assert scene.promote(alias="staging", variant="plain").release.parameters == {}


def test_a_variant_with_set_is_no_release(scene: Scene) -> None:
    scene.write("experiments/sort.experiment.yaml", TWO)
    scene.pass_gate()
    refused(scene, EvidenceError, r"changed by `set` \(parameters.temperature\)", variant="turned")


def test_a_baseline_that_moved_meanwhile_makes_the_comparison_void(scene: Scene) -> None:
    scene.pass_gate()
    scene.promote()
    scene.commit()
    scene.edit("one word only", "a single word")
    scene.write(
        "experiments/sort.experiment.yaml",
        "dataset: tickets\nvariants: {plain: {prompt: sort}}\nevaluators: [exact_match]\nbaseline: alias:production\n",
    )
    scene.pass_gate()
    before = scene.releases.read_bytes()
    moved = scene.promote()
    assert moved.is_new
    with pytest.raises(EvidenceError, match="the baseline changed since"):
        scene.promote(stage="staff")
    assert scene.releases.read_bytes().startswith(before)


@pytest.mark.parametrize(
    ("gate", "asked", "enough"),
    [
        ("margin: 0.05", {"margin": 0.05}, True),
        ("margin: 0.05", {"margin": 0.1}, False),
        ("relative: true, margin: 0.05", {"margin": 0.04}, True),
        ("", {"margin": 0.05}, True),
        ("slice: edge", {}, False),
        ("slice: edge", {"slice": "edge"}, True),
        ("variant: other", {"metric": "error_rate"}, True),
        ("variant: warm", {"metric": "error_rate"}, False),
    ],
)
def test_every_gate_of_today_was_asked(scene: Scene, gate: str, asked: dict[str, Any], enough: bool) -> None:
    asked = {"metric": "exact_match", **asked}
    gates = f"gates: [{{metric: exact_match, not_worse_than: baseline, {gate}}}]\nbaseline: plain\n"
    variants = TWO.replace(
        "turned: {prompt: sort, set: {parameters.temperature: 0.9}}", "other: {prompt: sort}"
    )
    scene.write("experiments/sort.experiment.yaml", variants + gates)
    scene.commit()
    scene.judge(scene.run(), gates=(gate_of(**asked),))
    if enough:
        assert scene.promote(variant="warm").is_new
    else:
        refused(scene, EvidenceError, "a gate changed since the verdict", variant="warm")


def test_what_is_not_committed_is_found_by_nobody_else_and_not_released(scene: Scene) -> None:
    scene.edit("one word only", "a single word")
    scene.judge(scene.run())
    refused(scene, UsageError, "prompts/sort.prompt.yaml, or what it uses, is not committed as it was judged")
    scene.commit()
    assert scene.promote().is_new


@pytest.mark.parametrize("alias", ["latest", "v1", "V12", "Production!", "3f2a91c07b44", "1", "git:main", ""])
def test_an_alias_is_a_word_that_references_and_mlflow_take(scene: Scene, alias: str) -> None:
    refused(scene, UsageError, "is no alias", alias=alias)


# --- who --------------------------------------------------------------------------------------------------------


def test_where_duties_are_separate_no_author_since_the_last_release_approves(scene: Scene) -> None:
    scene.write("llmops.yaml", "promotion: {separation_of_duties: true}\n")
    scene.pass_gate()
    refused(
        scene,
        EvidenceError,
        "ann@elsewhere.invalid cannot approve: Ann Author",
        approver="ann@elsewhere.invalid",
    )
    assert scene.promote(approver="Bob <bob@example.invalid>").is_new
    scene.commit()
    scene.edit("one word only", "a single word")
    scene.commit(who="Bob")
    scene.edit("single word", "single small word")
    scene.pass_gate()
    for author in ("bob", "Ann Author"):
        with pytest.raises(EvidenceError, match=f"{author} cannot approve"):
            scene.promote(approver=author)
    assert audited(scene.promote(approver="Cleo")).author.startswith("Ann Author")


def test_elsewhere_authors_approve_and_git_says_who_we_are(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Ann Author")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "ann@example.invalid")
    scene.pass_gate()
    assert audited(scene.promote(approver=None)).approver == "Ann Author <ann@example.invalid>"


# --- the file ---------------------------------------------------------------------------------------------------


def test_a_rollback_goes_back_one_release_as_a_line_of_its_own(scene: Scene) -> None:
    releases: list[Release] = []
    texts = ("one word only", "a single word", "just a word")
    for before, text in zip(texts[:1] + texts, texts, strict=False):
        scene.edit(before, text)
        scene.pass_gate()
        releases.append(scene.promote().release)
    back = scene.roll_back(reason="too many refusals")
    assert back.release.is_same(releases[1])
    assert back.before == releases[2]
    assert (audited(back).action, audited(back).reason) == ("rollback", "too many refusals")
    assert scene.roll_back().release.is_same(releases[0])
    assert len(read_releases(scene.releases.read_bytes())) == 5
    with pytest.raises(UsageError, match="nothing to roll back to"):
        scene.roll_back()
    resolved = scene.workspace().resolve("prompt", "sort@production")
    assert resolved.workspace.identity("prompt", "sort") == releases[0].identity


def test_a_rollback_needs_a_reason_and_something_to_go_back_to(scene: Scene) -> None:
    with pytest.raises(UsageError, match="--reason"):
        scene.roll_back(reason=" ")
    with pytest.raises(UsageError, match="sort@production was never set"):
        scene.roll_back()


def test_two_promotions_race_and_one_wins_F93(scene: Scene) -> None:
    scene.pass_gate()
    scene.promote(alias="staging")
    mine = scene.workspace()
    seen = scene.releases.read_bytes()
    scene.promote(alias="production")
    theirs = scene.releases.read_bytes()
    with pytest.raises(StoreHeldError, match="changed by another promotion"):
        replace_releases(mine, seen, seen + b"{}\n")
    assert scene.releases.read_bytes() == theirs


def test_a_promotion_killed_at_any_moment_leaves_whole_lines_F93(scene: Scene) -> None:
    scene.pass_gate()
    scene.promote()
    loop = (
        "import sys\nfrom pathlib import Path\nfrom llmops.definitions.release import with_release\n"
        "from llmops.definitions.workspace import load_workspace\nfrom llmops.stores.releases import replace_releases\n"
        "workspace = load_workspace(Path(sys.argv[1]))\n"
        "path = workspace.root / 'experiments/releases.jsonl'\n"
        "import json\nfields = json.loads(path.read_bytes().splitlines()[0])\n"
        "[fields.pop(key) for key in ('hash', 'previous', 'line')]\n"
        "while True:\n    data = path.read_bytes()\n    longer, _ = with_release(data, fields)\n"
        "    replace_releases(workspace, data, longer)\n    print('.', flush=True)\n"
    )
    last = 1
    for n_lines in (3, 7, 12):
        command = [sys.executable, "-c", loop, str(scene.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(n_lines):
                process.stdout.readline()
            process.kill()
        found = len(read_releases(scene.releases.read_bytes()))
        assert found >= last + n_lines
        last = found
    assert audited(scene.promote(alias="staging")).line == last + 1


def test_nothing_is_added_to_a_file_that_is_not_as_it_was_written(scene: Scene) -> None:
    scene.pass_gate()
    scene.promote()
    data = scene.releases.read_bytes()
    scene.releases.write_bytes(data.replace(b'"Bob"', b'"Eve"'))
    with pytest.raises(DefinitionError, match=r"releases.jsonl:1: this line was changed"):
        scene.promote(alias="staging")
    with pytest.raises(DefinitionError, match=r"releases.jsonl:1: this line was changed"):
        scene.workspace().resolve("prompt", "sort@production")
    (finding,) = check_workspace(scene.workspace())
    assert (finding.path, finding.line) == ("experiments/releases.jsonl", 1)


def test_lines_that_git_has_and_the_file_lacks_are_found(scene: Scene) -> None:
    scene.pass_gate()
    scene.promote()
    first = scene.releases.read_bytes()
    scene.promote(alias="staging")
    scene.commit()
    scene.releases.write_bytes(first)
    (finding,) = check_workspace(scene.workspace())
    assert (finding.line, "the one that is committed" in finding.message) == (2, True)
    with pytest.raises(DefinitionError, match=r"releases.jsonl:2:"):
        scene.promote(alias="canary")
    scene.releases.unlink()
    (finding,) = check_workspace(scene.workspace())
    assert finding.line == 1


def test_what_an_alias_means_is_asked_of_the_file(scene: Scene) -> None:
    scene.pass_gate()
    release = scene.promote().release
    order = Order("prompt", "sort", "production")
    assert find_release(scene.workspace(), order) == release
    with pytest.raises(UsageError, match="no such alias"):
        find_release(scene.workspace(), Order("prompt", "sort", "staging"))


def test_promotions_at_the_same_moment_each_win_whole_or_lose_F93(scene: Scene) -> None:
    scene.pass_gate()
    aliases = [f"place-{number}" for number in range(4)]
    ready = Barrier(len(aliases))

    def move(alias: str) -> str | None:
        ready.wait()
        try:
            return scene.promote(alias=alias).release.alias
        except StoreHeldError:
            return None

    with ThreadPoolExecutor(len(aliases)) as pool:
        won = {alias for alias in pool.map(move, aliases) if alias}
    assert won
    assert {each.alias for each in read_releases(scene.releases.read_bytes())} == won


def test_a_file_that_cannot_be_written_is_left_as_it_was(scene: Scene) -> None:
    scene.pass_gate()
    scene.promote()
    before = scene.releases.read_bytes()
    (scene.root / "experiments/.releases.jsonl.new").mkdir()
    with pytest.raises(StoreError, match="cannot be written: Is a directory; nothing was promoted"):
        scene.promote(alias="staging")
    assert scene.releases.read_bytes() == before
