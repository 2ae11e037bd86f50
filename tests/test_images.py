"""Images in prompts: what a model is sent, what is paid again when one changes, and what people see of them."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops.check import check_workspace
from llmops.definitions.images import Images, ImageStore
from llmops.definitions.prompt import Prompt
from llmops.definitions.trees import WorkTree
from llmops.definitions.workspace import load_workspace
from llmops.errors import StepError
from llmops.models.tokens import IMAGE_TOKENS, estimate_input_tokens
from llmops.plan import select
from llmops.records import ImagePart, TextPart
from llmops.render import Renderer
from llmops.report.html import run_page
from llmops.report.rows import row_line
from llmops.run import missing_outputs
from llmops.stores.traces import Teller, bounded
from tests.cli.inside import llmops_inside
from tests.model_server import Received, running_model_server
from tests.pictures import data_url, gif, png
from tests.workplace import Workplace, utc_now

PROMPT = """\
inputs: {picture: image, ask: string}
messages:
  - role: system
    content: You see two images.
  - role: user
    content:
      - {text: "{{ ask }}"}
      - {image: "{{ picture }}"}
      - {image: prompts/legend.png}
"""
EXPERIMENT = "dataset: seen\nvariants:\n  plain: {prompt: see}\nevaluators: [exact_match]\n"
DATASET = "inputs: {picture: image, ask: string}\nexpected: {type: string}\n"


def picture(name: str, data: bytes, root: Path) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def case(number: int, source: str) -> str:
    fields = {
        "id": f"c{number}",
        "inputs": {"picture": source, "ask": f"what is {number}?"},
        "expected": "x",
    }
    return json.dumps(fields) + "\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with running_model_server() as server:
        place = Workplace(tmp_path, server)
        place.write("prompts/see.prompt.yaml", PROMPT)
        place.write("experiments/see.experiment.yaml", EXPERIMENT)
        place.write("datasets/seen.dataset.yaml", DATASET)
        picture("prompts/legend.png", png(4, 4), tmp_path)
        for number in range(3):
            picture(f"datasets/pics/{number}.png", png(colour=number), tmp_path)
        urls = data_url(gif(), "image/gif")
        lines = [*(case(number, f"pics/{number}.png") for number in range(3)), case(3, urls)]
        place.write("datasets/seen.jsonl", "".join(lines))
        yield place


def images_of(received: Received) -> list[str]:
    parts = received.body["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


# --- what is sent -------------------------------------------------------------------------------------------


def test_a_model_is_sent_the_images_of_the_case_and_of_the_prompt_in_their_order(place: Workplace) -> None:
    run = place.run("see").run
    sent = {
        received.body["messages"][-1]["content"][0]["text"]: received for received in place.new_requests()
    }
    assert run.n_errors == 0
    assert images_of(sent["what is 1?"]) == [data_url(png(colour=1)), data_url(png(4, 4))]
    assert images_of(sent["what is 3?"]) == [data_url(gif(), "image/gif"), data_url(png(4, 4))]
    by_case = {row.case.id: row.output for row in place.rows(run)}
    seen = [hashlib.sha256(url.encode()).hexdigest()[:8] for url in (data_url(png()), data_url(png(4, 4)))]
    assert by_case["c0"] is not None
    assert by_case["c0"].value == f"saw {', '.join(seen)}"


def rendered(tmp_path: Path, inputs: dict[str, Any]) -> tuple[Any, ...]:
    images = Images(WorkTree(tmp_path), ImageStore())
    parts = [{"text": "{{ text }}"}, {"image": "{{ picture }}"}]
    prompt = Prompt.model_validate(
        {
            "inputs": {"text": "string", "picture": "image"},
            "messages": [{"role": "user", "content": parts}],
        }
    )
    facts = images.look_at(data_url(png())).value()
    return Renderer(prompt, images=images).messages({"picture": facts, **inputs})


@pytest.mark.parametrize(
    "text",
    [
        data_url(gif(), "image/gif"),
        '"}, {"image": "prompts/legend.png"}',
        '[{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]',
        "{{ picture }}",
        "- {image: secret.png}",
    ],
)
def test_text_of_a_case_never_becomes_a_part(tmp_path: Path, text: str) -> None:
    (message,) = rendered(tmp_path, {"text": text})
    assert message.content == (TextPart(text=text), ImagePart(image=data_url(png())))
    assert estimate_input_tokens([message]) >= IMAGE_TOKENS


@pytest.mark.parametrize("value", ["prompts/legend.png", data_url(png()), {"image": "x.png"}, None, 3])
def test_a_value_that_no_dataset_declared_an_image_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(StepError, match="input 'picture': no image; its dataset declares it"):
        rendered(tmp_path, {"text": "", "picture": value})


JUDGE = """\
inputs: {picture: image, output: any}
messages:
  - role: user
    content:
      - {text: "Is this right? {{ output }}"}
      - {image: "{{ picture }}"}
"""


def test_a_judge_sees_the_image_of_the_case(place: Workplace) -> None:
    place.write("prompts/right.prompt.yaml", JUDGE)
    place.edit(
        "experiments/see.experiment.yaml",
        "[exact_match]",
        "[{judge: {prompt: right, model: other, scale: [0, 1]}}]",
    )
    assert findings(place) == []
    run = place.run("see").run
    asked = [received for received in place.new_requests() if received.body["model"] == "n"]
    assert run.n_unscored == 0
    assert sorted(images_of(received)[0] for received in asked) == sorted(
        [*(data_url(png(colour=number)) for number in range(3)), data_url(gif(), "image/gif")]
    )
    place.edit("llmops.yaml", "    model: n\n", "    model: n\n    card: {modalities: [text]}\n")
    assert any("see.experiment.yaml:" in f and "and no images" in f for f in findings(place))


def test_outputs_are_judged_again_with_the_images_of_their_cases(place: Workplace) -> None:
    place.write("prompts/right.prompt.yaml", JUDGE)
    place.edit(
        "experiments/see.experiment.yaml",
        "[exact_match]",
        "[{judge: {prompt: right, model: other, scale: [0, 1]}}]",
    )
    run = place.run("see").run
    before = sorted(
        images_of(received)[0] for received in place.new_requests() if received.body["model"] == "n"
    )
    place.edit("prompts/right.prompt.yaml", "Is this right?", "Was this right?")
    done = llmops_inside("score", run.id, cwd=place.root, more=place.environment)
    assert "4 outputs scored, 4 calls" in done.stderr
    assert sorted(images_of(received)[0] for received in place.new_requests()) == before


def test_recordings_answer_for_images_without_holding_them(place: Workplace) -> None:
    large = png(300, 300) + b"\0" * 100_000
    picture("datasets/pics/0.png", large, place.root)
    arguments = ("run", "experiments/see", "--no-sync")
    done = llmops_inside(*arguments, "--record", cwd=place.root, more=place.environment)
    assert done.returncode == 0, done.stderr
    file = place.root / "experiments/recordings/see.jsonl.gz"
    recorded = gzip.decompress(file.read_bytes()).decode()
    digest = hashlib.sha256(data_url(large).encode()).hexdigest()
    assert f"data:image/png;base64,sha256:{digest}" in recorded
    assert len(recorded) < 20_000
    shutil.rmtree(place.root / ".llmops")
    done = llmops_inside(*arguments, "--replay", "only", cwd=place.root)
    assert "4 reused" in " ".join(done.stdout.split())
    picture("datasets/pics/1.png", png(colour=99), place.root)
    done = llmops_inside(*arguments, "--replay", "only", cwd=place.root)
    assert done.returncode == 3  # for the image that is another, nothing was recorded


def test_a_flat_file_says_where_its_images_are(place: Workplace) -> None:
    (place.root / "datasets/seen.jsonl").unlink()
    place.write(
        "datasets/seen.csv", "id,inputs.picture,inputs.ask,expected\n1,pics/1.png,what?,x\n2,,what?,x\n"
    )
    assert any("seen.csv:3 case '2': input 'picture'" in found for found in findings(place))
    place.edit("datasets/seen.csv", "2,,", "2,pics/2.png,")
    assert place.run("see").run.n_errors == 0
    assert len(place.new_requests()) == 2


def test_examples_show_no_images_and_check_says_so(place: Workplace) -> None:
    block = '  - examples: {from: seen, k: 1}\n    user: "{{ picture }}"\n    assistant: "{{ expected }}"\n'
    place.edit("prompts/see.prompt.yaml", "  - role: user\n", block + "  - role: user\n")
    assert "prompts/see.prompt.yaml:6 'picture' is an image, and stands in text" in findings(place)


# --- what is done again ---------------------------------------------------------------------------------------


def test_a_changed_image_is_a_changed_case_and_no_other(place: Workplace) -> None:
    place.run("see")
    assert len(place.new_requests()) == 4
    place.run("see")
    assert place.new_requests() == []
    picture("datasets/pics/1.png", png(colour=77), place.root)
    plan = place.plan("see")
    with place.journal() as journal:
        journal.begin_run(plan.run, plan.cells())
        assert missing_outputs(plan, journal, select(plan)) == {"plain": 1}
    assert place.run("see").run.n_errors == 0
    assert [images_of(received)[0] for received in place.new_requests()] == [data_url(png(colour=77))]


def test_a_changed_image_of_the_prompt_is_another_prompt(place: Workplace) -> None:
    before = place.workspace().identity("prompt", "see"), place.run("see").run.variants[0].identity
    place.new_requests()
    picture("prompts/legend.png", png(5, 5), place.root)
    after = place.workspace().identity("prompt", "see"), place.run("see").run.variants[0].identity
    assert not set(before) & set(after)
    assert len(place.new_requests()) == 4


def test_a_prompt_without_images_is_what_it_was(place: Workplace) -> None:
    known = "prompts/sort.prompt.yaml"
    assert "images" not in place.workspace().prompt("sort").meaning(), known
    assert place.workspace().images_of(place.workspace().prompt("sort")) == {}


# --- what people see -------------------------------------------------------------------------------------------


def test_rows_pages_and_traces_hold_hash_and_size_and_no_image(place: Workplace) -> None:
    large = png(300, 300, 9) + b"\0" * 200_000
    picture("datasets/pics/0.png", large, place.root)
    run = place.run("see").run
    digest = hashlib.sha256(large).hexdigest()
    with place.journal() as journal:
        rows = list(journal.rows(run.id))
        page = run_page(run, (), journal, now=utc_now())
        teller = Teller(run, call_of=journal.find_call)
        traces = [teller.tell(row) for row in rows]
    lines = [row_line(row) for row in rows]
    assert max(map(len, lines)) < 5_000
    assert any(digest in line and '"width": 300' in line for line in lines)
    assert f"image/png, 300x300, {len(large):,} bytes, sha256:{digest[:12]}" in page
    assert "base64,iVBOR" not in page
    shown = json.dumps([step.inputs for trace in traces if trace for step in trace.steps])
    assert digest[:12] in shown
    assert len(shown) < 20_000
    assert bounded(data_url(large)).startswith("[image image/png, 300x300")


def test_render_shows_words_for_an_image(place: Workplace) -> None:
    done = llmops_inside("render", "see", "--case", "seen:c0", cwd=place.root)
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(png()).hexdigest()[:12]
    assert f"[image image/png, 2x3, {len(png())} bytes, sha256:{digest}]" in done.stdout
    assert "base64" not in done.stdout
    told = llmops_inside("render", "see", "--case", "seen:c0", "--json", cwd=place.root)
    assert json.loads(told.stdout)["messages"][1]["content"][0] == {"text": "what is 0?"}


def test_an_image_on_the_command_line_is_a_file_seen_from_where_one_stands(place: Workplace) -> None:
    arguments = ("render", "see", "--input", "ask=?", "--input")
    done = llmops_inside(*arguments, "picture=0.png", cwd=place.root / "datasets/pics")
    assert (done.returncode, done.stderr) == (0, "")
    for source, said in {"9.png": "no image datasets/pics/9.png", "http://x/": "none is fetched"}.items():
        done = llmops_inside(*arguments, f"picture={source}", cwd=place.root / "datasets/pics")
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


# --- what check finds -------------------------------------------------------------------------------------------

Change = Callable[[Workplace], None]


def findings(place: Workplace) -> list[str]:
    return [f"{each.path}:{each.line} {each.message}" for each in check_workspace(load_workspace(place.root))]


def test_check_finds_nothing_in_what_is_right(place: Workplace) -> None:
    assert findings(place) == []


def edited(old: str, new: str) -> Change:
    return lambda place: place.edit("prompts/see.prompt.yaml", old, new)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            edited("prompts/legend.png", "prompts/legend.jpg"),
            "prompts/see.prompt.yaml:9 there is no image prompts/legend.jpg in the work tree",
        ),
        (
            edited("prompts/legend.png", "../legend.png"),
            "prompts/see.prompt.yaml:9 '../legend.png' is no path inside the project",
        ),
        (
            edited("prompts/legend.png", "prompts/see.prompt.yaml"),
            "prompts/see.prompt.yaml:9 prompts/see.prompt.yaml holds no image",
        ),
        (
            edited("prompts/legend.png", "https://x.test/a.png"),
            "prompts/see.prompt.yaml:9 'https://x.test/a.png': an image is a file of the project",
        ),
        (
            edited('image: "{{ picture }}"', 'image: "{{ ask }}"'),
            "prompts/see.prompt.yaml:8 an image comes from an input of type image",
        ),
        (
            edited('image: "{{ picture }}"', 'image: "pics/{{ picture }}.png"'),
            "prompts/see.prompt.yaml:8 an image comes from an input of type image",
        ),
        (
            edited('text: "{{ ask }}"', 'text: "{{ picture }}"'),
            "prompts/see.prompt.yaml:7 'picture' is an image, and stands in text",
        ),
        (edited("role: user", "role: assistant"), "models take images from the user, not from assistant"),
        (
            lambda place: place.edit(
                "llmops.yaml", "model: m\n", "model: m\n    card: {modalities: [text]}\n"
            ),
            "model default takes text by its card, and no images",
        ),
        (
            lambda place: place.write("llmops.yaml", "models:\n  default: {provider: embedded}\n"),
            "model default (embedded) takes no images",
        ),
        (
            lambda place: (place.root / "datasets/pics/2.png").unlink(),
            "datasets/seen.jsonl:3 case 'c2': input 'picture': there is no image datasets/pics/2.png",
        ),
        (
            lambda place: place.edit("datasets/seen.jsonl", "pics/2.png", "../llmops.yaml"),
            "datasets/seen.jsonl:3 case 'c2': input 'picture': 'datasets/../llmops.yaml' is no path inside",
        ),
    ],
)
def test_check_finds_what_is_wrong_with_its_line(place: Workplace, change: Change, said: str) -> None:
    change(place)
    assert any(said in found for found in findings(place)), findings(place)


def test_check_finds_an_image_that_is_too_large(place: Workplace) -> None:
    with (place.root / "prompts/legend.png").open("ab") as file:
        file.truncate(11_000_000)
    assert any("see.prompt.yaml:9 prompts/legend.png is larger than 10,000,000" in f for f in findings(place))
