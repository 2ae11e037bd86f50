"""A prompt or chain as an MLflow model from code: a file that MLflow logs and loads, and the files it stands on."""

from __future__ import annotations

import json

from llmops import __version__
from llmops.convert.account import Page
from llmops.definitions.chain import uses_of
from llmops.definitions.reference import FOLDERS, Kind
from llmops.definitions.workspace import PROJECT_FILE, Workspace
from llmops.errors import UsageError

PROJECT = "project"
_MODEL = '''"""{kind} {name}, as a model from code. `python model.py` logs it; load it with mlflow.pyfunc.load_model."""

from pathlib import Path

import mlflow
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

KIND, NAME = {kind_text}, {name_text}


class LlmopsModel(PythonModel):
    """Carries out a {kind} of the project that was logged with it, once for each row of inputs."""

    def load_context(self, context):
        self.project = context.artifacts["project"]

    def predict(self, context, model_input, params=None):
        from llmops.convert.pyfunc import predict

        return predict(self.project, KIND, NAME, model_input)


set_model(LlmopsModel())


def log(**options):
    """Log the model in the active run of MLflow, or in one of its own, and return what MLflow says of it."""
    here = Path(__file__).parent
    return mlflow.pyfunc.log_model(
        name=NAME,
        python_model=str(here / "model.py"),
        artifacts={{"project": str(here / "project")}},
        pip_requirements=[{requirement}],
        **options,
    )


if __name__ == "__main__":
    print(log().model_uri)
'''


def export(workspace: Workspace, kind: Kind, name: str) -> tuple[dict[str, str], list[Page]]:
    """Return model.py, and below `project/` all that the prompt or chain refers to.

    Raises UsageError for what refers to another version than the work tree's.
    """
    page = Page(workspace.document(kind, name))
    page.keep((), "carried out by llmops, from the copy in project/")
    text = _MODEL.format(
        kind=kind,
        name=name,
        kind_text=json.dumps(kind),
        name_text=json.dumps(name),
        requirement=json.dumps(f"llmops-workbench=={__version__}"),
    )
    gathering = _Gathering(workspace)
    gathering.take(kind, name)
    files = {f"{PROJECT}/{path}": content for path, content in gathering.files.items()}
    return {"model.py": text, **files}, [page]


class _Gathering:
    """The files that a definition stands on, with llmops.yaml."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.files: dict[str, str] = {}
        self._take_file(PROJECT_FILE)

    def take(self, kind: Kind, reference: str) -> None:
        """Take a definition and all that it refers to."""
        found = self._workspace.resolve(kind, reference)
        if found.workspace is not self._workspace or found.release is not None:
            raise UsageError(
                f"{reference}: a model from code holds what stands in the work tree, and no other version"
            )
        path = self._workspace.path(kind, found.name)
        if path in self.files:
            return
        self._take_file(path)
        if kind == "prompt":
            self._take_examples(found.name)
        elif kind == "chain":
            self._take_steps(found.name)

    def _take_examples(self, name: str) -> None:
        examples = self._workspace.prompt(name).examples
        if examples is None or not examples.k:
            return
        dataset, _ = self._workspace.cases(examples.source)
        self._take_file(self._workspace.path("dataset", dataset.name))
        self._take_file(dataset.path)

    def _take_steps(self, name: str) -> None:
        for step in self._workspace.chain(name).steps:
            for use in uses_of(step):
                if use.prompt is not None:
                    self.take("prompt", use.prompt)
                elif use.chain is not None:
                    self.take("chain", use.chain)
                else:
                    self._take_folder(FOLDERS["chain"])

    def _take_folder(self, folder: str, depth: int = 0) -> None:
        """Take whatever stands beside the chains: code imports what it likes, and indexes have sources."""
        for file in self._workspace.tree.names(folder):
            if not file.endswith(".pyc"):
                self._take_file(f"{folder}/{file}")
        root = self._workspace.root / folder
        below = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
        for inner in below:
            if inner != "__pycache__" and depth < 5:
                self._take_folder(f"{folder}/{inner}", depth + 1)

    def _take_file(self, path: str) -> None:
        data = self._workspace.tree.read(path)
        try:
            self.files.setdefault(path, (data or b"").decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is no text, and cannot be part of a model from code") from error
