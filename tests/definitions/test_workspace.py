"""A project's definitions, the references between them, and their identities, beside git's history."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.definitions.reference import Kind
from llmops.definitions.workspace import Workspace, find_root, load_workspace
from llmops.errors import DefinitionError, UsageError

Project = Callable[..., Path]
Git = Callable[..., str]

PROMPT = """\
inputs: {q: string}
messages:
  - examples: {from: shown/train, k: 1}
    user: "{{ q }}"
    assistant: "{{ expected }}"
  - {role: user, content: "{{ q }}"}
"""
PLAIN = "inputs: {q: string}\nmessages: [{role: user, content: '{{ q }}'}]\n"
CHAIN = """\
inputs: {q: string}
steps:
  - {id: clean, python: "text:clean", with: {text: "{{ q }}"}}
  - {id: ask, prompt: ask, with: {q: "{{ clean.output }}"}}
"""
OUTER = "inputs: {q: string}\nsteps: [{id: inner, chain: answer, with: {q: '{{ q }}'}}]\n"


def cases(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def case(case_id: str, split: str = "train", expected: str = "yes") -> dict[str, Any]:
    return {
        "id": case_id,
        "inputs": {"q": f"text of {case_id}"},
        "expected": expected,
        "metadata": {"split": split},
    }


FILES = {
    "prompts/ask.prompt.yaml": PROMPT,
    "chains/answer.chain.yaml": CHAIN,
    "chains/outer.chain.yaml": OUTER,
    "chains/text.py": "import words\n\ndef clean(*, text):\n    return words.strip(text)\n",
    "chains/words.py": "def strip(text): return text.strip()\n",
    "datasets/shown.dataset.yaml": "splits: {by: metadata.split}\n",
    "datasets/shown.jsonl": cases(case("a"), case("b"), case("c", "test")),
    "experiments/try.experiment.yaml": "dataset: shown/test\nvariants: {a: {prompt: ask}}\n",
}


def identities(root: Path) -> dict[str, str]:
    workspace = load_workspace(root)
    kinds: dict[str, Kind] = {
        "ask": "prompt",
        "answer": "chain",
        "outer": "chain",
        "shown": "dataset",
        "try": "experiment",
    }
    return {name: workspace.identity(kind, name) for name, kind in kinds.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


# --- loading ------------------------------------------------------------------------------------------------


def test_every_kind_is_loaded_by_name(project: Project) -> None:
    workspace = load_workspace(project(FILES))
    assert workspace.names("chain") == ["answer", "outer"]
    assert workspace.prompt("ask").inputs == {"q": "string"}
    assert [step.id for step in workspace.chain("answer").steps] == ["clean", "ask"]
    assert [found.id for found in workspace.dataset("shown").of("train")] == ["a", "b"]
    assert workspace.experiment("try").dataset == "shown/test"


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "\ufeff", "  # a\n\t# b\n", "\r\n"])
def test_a_project_file_that_says_nothing_means_the_defaults(project: Project, text: str) -> None:
    assert list(load_workspace(project({"llmops.yaml": text})).project.models) == ["default"]


def test_a_project_file_that_is_wrong_is_told(project: Project) -> None:
    workspace = load_workspace(project({"llmops.yaml": "- a\n"}))
    for _ in range(2):
        with pytest.raises(DefinitionError, match=r"llmops.yaml:1:1: should be a mapping"):
            _ = workspace.project


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("prompt", "aks", r"no prompt is called 'aks' in the work tree; did you mean 'ask'\?"),
        ("prompt", "zzz", "no prompt is called 'zzz' in the work tree; there are: ask"),
        ("chain", "answre", "did you mean 'answer'"),
        ("experiment", "tyr", "did you mean 'try'"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(
    project: Project, kind: Kind, name: str, said: str
) -> None:  # F71
    workspace = load_workspace(project(FILES))
    with pytest.raises(UsageError, match=said):
        workspace.resolve(kind, name)
    with pytest.raises(UsageError, match=said):
        workspace.document(kind, name)


def test_in_an_empty_project_the_file_to_write_is_named(project: Project) -> None:
    with pytest.raises(
        UsageError, match=r"no prompt is called 'a' in the work tree; write prompts/a.prompt.yaml"
    ):
        load_workspace(project()).resolve("prompt", "a")


@pytest.mark.parametrize(
    "name", ["../ask", "/etc/passwd", "a/b", "a\0", "..", "a@1", "file:///a", "a%2fb", "con"]
)
def test_no_spelling_of_a_path_is_a_definition(project: Project, name: str) -> None:  # S06
    workspace = load_workspace(project(FILES))
    with pytest.raises(UsageError):
        workspace.resolve("prompt", name)
    with pytest.raises(UsageError, match=r"no path inside the project|no prompt is called"):
        workspace.document("prompt", name)


def test_a_broken_definition_is_told_each_time_and_read_once(project: Project) -> None:
    root = project({"prompts/a.prompt.yaml": "messages: [{role: user, content: '{{ x }}'}]"})
    workspace = load_workspace(root)
    for _ in range(2):
        with pytest.raises(DefinitionError, match="'x' is not defined here"):
            workspace.prompt("a")
    (root / "prompts/a.prompt.yaml").unlink()
    with pytest.raises(DefinitionError, match="'x' is not defined here"):
        workspace.prompt("a")


def test_a_dataset_may_be_csv_but_not_jsonl_beside_it(project: Project) -> None:
    files = {"datasets/d.dataset.yaml": "kind: few_shot\n", "datasets/d.csv": "id,inputs.q\na,x\n"}
    (found,) = load_workspace(project(files)).dataset("d").cases
    assert (found.id, found.inputs) == ("a", {"q": "x"})
    with pytest.raises(DefinitionError) as caught:
        load_workspace(project({**files, "datasets/d.jsonl": ""})).dataset("d")
    assert "more than one file: datasets/d.jsonl and datasets/d.csv" in str(caught.value)


def test_wrong_cases_and_empty_splits_are_taken_where_the_workspace_is_told_to(project: Project) -> None:
    files = {
        "datasets/d.dataset.yaml": "kind: few_shot\n",
        "datasets/d.jsonl": '{"id": "a", "inputs": {}}\n{"id": 5}\n',
    }
    workspace = load_workspace(project(files))
    workspace.skip_bad = workspace.allow_empty = True
    dataset, split = workspace.cases("d/none")
    assert (len(dataset.cases), dataset.n_skipped, len(dataset.of(split))) == (1, 1, 0)
    assert workspace.read_datasets() == [dataset]


def test_a_dataset_without_its_cases_is_told(project: Project) -> None:
    workspace = load_workspace(project({"datasets/d.dataset.yaml": "kind: few_shot\n"}))
    with pytest.raises(
        DefinitionError, match=r"datasets/d.dataset.yaml: its cases are missing: no datasets/d.jsonl"
    ):
        workspace.dataset("d")


def test_the_project_is_the_nearest_folder_with_its_file(project: Project) -> None:
    root = project({"prompts/deep/x": "", "sub/llmops.yaml": "", "sub/a/x": ""})
    assert find_root(root / "prompts/deep") == root
    assert find_root(root / "sub/a") == root / "sub"
    with pytest.raises(UsageError, match="run `llmops init` to start a project"):
        find_root(Path("/"))


# --- identities ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "old", "new", "names"),
    [
        ("prompts/ask.prompt.yaml", "content:", "# why\n   content:", set[str]()),
        ("prompts/ask.prompt.yaml", "k: 1", "k: 2", {"ask", "answer", "outer"}),
        ("datasets/shown.jsonl", "text of b", "text of B", {"ask", "answer", "outer", "shown"}),
        ("datasets/shown.jsonl", '"id": "c"', '"id": "d"', {"shown"}),
        ("datasets/shown.jsonl", ', "metadata"', ' ,  "metadata"', set[str]()),
        ("datasets/shown.dataset.yaml", "splits:", "origin: us\nsplits:", set[str]()),
        ("chains/answer.chain.yaml", "{{ clean.output }}", "{{ clean.output | upper }}", {"answer", "outer"}),
        ("chains/outer.chain.yaml", "id: inner", "id: other", {"outer"}),
        ("chains/text.py", "import words\n", "import words  # which\n\n", set[str]()),
        ("chains/text.py", "strip(text)", "strip(text + '.')", {"answer", "outer"}),
        ("chains/words.py", "text.strip()", "text.rstrip()", {"answer", "outer"}),
        ("experiments/try.experiment.yaml", "shown/test", "shown/train", {"try"}),
    ],
)
def test_a_change_reaches_exactly_what_refers_to_it(
    project: Project, path: str, old: str, new: str, names: set[str]
) -> None:
    before = identities(project(FILES))
    assert old in FILES[path]
    if path.endswith("prompt.yaml") and not names:
        new, old = "messages: # why\n", "messages:\n"
    after = identities(project({**FILES, path: FILES[path].replace(old, new)}))
    assert changed(before, after) == names


def test_examples_of_which_none_is_shown_do_not_count(project: Project) -> None:
    silent = {**FILES, "prompts/ask.prompt.yaml": PROMPT.replace("k: 1", "k: 0")}
    before = identities(project(silent))
    after = identities(project({**silent, "datasets/shown.jsonl": cases(case("z"), case("y", "test"))}))
    assert changed(before, after) == {"shown"}


def test_a_file_that_nothing_refers_to_changes_no_identity(project: Project) -> None:
    before = identities(project(FILES))
    extra = {
        "chains/unused.py": "x = 1",
        "prompts/other.prompt.yaml": PLAIN,
        "README.md": "hi",
        "llmops.yaml": "x-a: 1\n",
    }
    assert identities(project({**FILES, **extra})) == before


@pytest.mark.parametrize(
    ("chains", "circle"),
    [
        ({"a": "a"}, "a -> a"),
        ({"a": "b", "b": "a"}, "a -> b -> a"),
        ({"a": "b", "b": "c", "c": "b"}, "b -> c -> b"),
    ],
)
def test_chains_that_use_one_another_are_refused_with_the_circle(
    project: Project, chains: dict[str, str], circle: str
) -> None:  # F70
    files = {
        f"chains/{name}.chain.yaml": f"steps: [{{id: s, chain: {used}}}]" for name, used in chains.items()
    }
    workspace = load_workspace(project(files))
    for _ in range(2):
        with pytest.raises(UsageError, match=f"chains use one another in a circle: {circle}$"):
            workspace.identity("chain", "a")


def test_chains_nested_too_deep_are_refused(project: Project) -> None:
    files = {f"chains/c{n}.chain.yaml": f"steps: [{{id: s, chain: c{n + 1}}}]" for n in range(40)}
    workspace = load_workspace(project({**files, "chains/c40.chain.yaml": "steps: [{id: s, python: 'm:f'}]"}))
    with pytest.raises(UsageError, match="chains use one another more than 30 deep"):
        workspace.identity("chain", "c0")


# --- versions -----------------------------------------------------------------------------------------------


@pytest.fixture
def history(project: Project, git: Git) -> tuple[Workspace, str]:
    """A commit of everything, and a work tree in which prompt, examples and code have changed since."""
    project(FILES)
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    root = project(
        {
            "prompts/ask.prompt.yaml": PROMPT.replace(
                '{role: user, content: "{{ q }}"}', '{role: user, content: "Q: {{ q }}"}'
            ),
            "datasets/shown.jsonl": cases(case("new"), case("c", "test")),
            "chains/words.py": "def strip(text): return text.upper()\n",
        }
    )
    return load_workspace(root), git("rev-parse", "HEAD")


def test_a_git_revision_is_a_whole_workspace_of_its_own(history: tuple[Workspace, str]) -> None:
    today, commit = history
    for text in ("ask@git:main", "ask@git:HEAD", f"ask@git:{commit[:10]}"):
        then = today.resolve("prompt", text).workspace
        assert then is today.at(commit)
        assert then.today is today
    assert then.prompt("ask").messages != today.prompt("ask").messages
    assert [c.id for c in then.cases("shown/train")[0].of("train")] == ["a", "b"]
    assert [c.id for c in today.cases("shown/train")[0].of("train")] == ["new"]
    assert then.code.load("text:clean")(text=" x ") == "x"
    assert today.code.load("text:clean")(text=" x ") == " X "
    for kind, name in (("prompt", "ask"), ("chain", "answer"), ("chain", "outer"), ("dataset", "shown")):
        assert then.identity(kind, name) != today.identity(kind, name)  # type: ignore[arg-type]
    assert repr(then) == f"Workspace(git:{commit[:12]})"


def test_inside_an_old_definition_plain_names_stay_in_the_past(history: tuple[Workspace, str]) -> None:
    today, _ = history
    old = today.resolve("chain", "outer@git:HEAD")
    inner = old.workspace.resolve("chain", "answer")
    assert inner.workspace is old.workspace


def test_a_dataset_with_its_split_is_read_at_a_revision(history: tuple[Workspace, str]) -> None:
    dataset, split = history[0].cases("shown/train@git:HEAD")
    assert [found.id for found in dataset.of(split)] == ["a", "b"]
    with pytest.raises(UsageError, match=r"dataset shown has no split 'trian'; did you mean 'train'\?"):
        history[0].cases("shown/trian@git:HEAD")


def test_a_name_that_was_not_there_yet_is_told(history: tuple[Workspace, str], project: Project) -> None:
    project({"prompts/young.prompt.yaml": PLAIN})
    with pytest.raises(UsageError, match=r"no prompt is called 'young' in git:[0-9a-f]{12}; there are: ask"):
        history[0].resolve("prompt", "young@git:HEAD")


def test_an_identity_finds_its_definition_today_or_in_history(history: tuple[Workspace, str]) -> None:
    today, commit = history
    old, new = today.at(commit).identity("prompt", "ask"), today.identity("prompt", "ask")
    assert today.resolve("prompt", f"ask@{new}").workspace is today
    for digits in (12, 20, 64):
        assert today.resolve("prompt", f"ask@{old[:digits]}").workspace is today.at(commit)
    with pytest.raises(UsageError, match="no prompt of that identity stands here or in git's history"):
        today.resolve("prompt", "ask@000000000000")
    chain = today.at(commit).identity("chain", "outer")
    assert today.resolve("chain", f"outer@{chain[:12]}").workspace is today.at(commit)


def test_history_is_searched_past_what_is_broken_today_and_was_broken_then(
    history: tuple[Workspace, str], project: Project, git: Git
) -> None:
    today, commit = history
    wanted = today.at(commit).identity("prompt", "ask")
    for n, text in enumerate(["messages: [", "", PROMPT.replace("shown", "gone")]):
        project({"prompts/ask.prompt.yaml": text})
        git("commit", "-qam", f"broken {n}")
    (today.root / "prompts/ask.prompt.yaml").unlink()
    git("commit", "-qam", "gone")
    assert (
        load_workspace(today.root).resolve("prompt", f"ask@{wanted[:12]}").workspace.tree.label
        == f"git:{commit[:12]}"
    )


def release(identity: str, **fields: Any) -> str:
    return (
        json.dumps({"kind": "prompt", "name": "ask", "alias": "production", "identity": identity, **fields})
        + "\n"
    )


def test_an_alias_points_at_the_release_that_stands_last(
    history: tuple[Workspace, str], project: Project
) -> None:
    today, commit = history
    old, new = today.at(commit).identity("prompt", "ask"), today.identity("prompt", "ask")
    root = project(
        {"experiments/releases.jsonl": release(new) + release(old, model="nemo", parameters={"seed": 1})}
    )
    found = load_workspace(root).resolve("prompt", "ask@production")
    assert found.workspace.tree.label == f"git:{commit[:12]}"
    assert found.release is not None
    assert (found.release.model, found.release.parameters) == ("nemo", {"seed": 1})
    with pytest.raises(UsageError, match=r"ask@prodution: no such alias; did you mean 'production'\?"):
        load_workspace(root).resolve("prompt", "ask@prodution")
    with pytest.raises(UsageError, match=r"no release of it stands in experiments/releases.jsonl"):
        load_workspace(root).resolve("chain", "answer@production")


def test_an_alias_inside_an_old_definition_is_today_s(
    history: tuple[Workspace, str], project: Project
) -> None:
    today, commit = history
    root = project({"experiments/releases.jsonl": release(today.identity("prompt", "ask"))})
    workspace = load_workspace(root)
    assert workspace.at(commit).resolve("prompt", "ask@production").workspace is workspace


def test_a_chain_that_uses_a_release_changes_with_its_model_and_parameters(
    history: tuple[Workspace, str], project: Project
) -> None:
    wanted = history[0].identity("prompt", "ask")
    chain = "steps: [{id: s, prompt: ask@production, with: {q: x}}]"

    def identity(**fields: Any) -> str:
        root = project(
            {"chains/c.chain.yaml": chain, "experiments/releases.jsonl": release(wanted, **fields)}
        )
        return load_workspace(root).identity("chain", "c")

    assert len({identity(), identity(model="a"), identity(model="b"), identity(parameters={"seed": 1})}) == 4


def test_a_chain_may_use_an_older_version_of_itself(history: tuple[Workspace, str], project: Project) -> None:
    older = history[0].at("HEAD").identity("chain", "answer")
    text = (
        f"inputs: {{q: string}}\nsteps: [{{id: s, chain: answer@{older[:12]}, with: {{q: '{{{{ q }}}}'}}}}]"
    )
    workspace = load_workspace(project({"chains/answer.chain.yaml": text}))
    assert workspace.identity("chain", "answer") != older


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("prompt", "ask@7", "numbers differ between MLflow servers"),
        ("prompt", "ask/train", "a prompt has no splits"),
        ("prompt", "a b", "is no reference"),
        ("prompt", "ask@git:nothing", "git:nothing: git knows no such revision here"),
        ("dataset", "shown@production", "no release of it stands"),
        ("dataset", "shonw/train", "did you mean 'shown'"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(
    history: tuple[Workspace, str], kind: Kind, text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        history[0].resolve(kind, text)


def test_outside_a_repository_only_what_needs_history_fails(project: Project) -> None:  # F84
    workspace = load_workspace(project(FILES))
    identity = workspace.identity("prompt", "ask")
    assert workspace.resolve("prompt", f"ask@{identity[:12]}").workspace is workspace
    with pytest.raises(
        UsageError, match="there is no history to look in: git rev-list: not a git repository"
    ):
        workspace.resolve("prompt", "ask@000000000000")
    with pytest.raises(UsageError, match=r"git:main: .*not a git repository"):
        workspace.resolve("prompt", "ask@git:main")


def test_in_a_shallow_clone_a_missing_identity_names_the_reason(
    history: tuple[Workspace, str], git: Git, tmp_path_factory: pytest.TempPathFactory
) -> None:  # F84
    today, _ = history
    old = today.at("HEAD").identity("prompt", "ask")
    git("commit", "-qam", "two")
    clone = tmp_path_factory.mktemp("clone") / "c"
    git("clone", "-q", "--depth", "1", f"file://{today.root}", str(clone))
    with pytest.raises(UsageError, match="this clone is shallow"):
        load_workspace(clone).resolve("prompt", f"ask@{old[:12]}")
