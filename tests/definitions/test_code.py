"""The project's own Python: what it is worth as an identity, and how it is loaded from any tree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from llmops.definitions.code import Code
from llmops.definitions.trees import GitTree, WorkTree
from llmops.errors import DefinitionError, UsageError

Project = Callable[..., Path]
Git = Callable[..., str]


def code_of(root: Path) -> Code:
    return Code(WorkTree(root))


def identity_with(project: Project, module: str, **modules: str) -> str:
    files = {f"chains/{name.replace('__', '/')}.py": dedent(text) for name, text in modules.items()}
    return code_of(project(files)).identity(module)


# --- identity -----------------------------------------------------------------------------------------------

SOURCE = '''
"""Steps."""
import re

LIMIT = 5


def find(*, text: str, n: int = LIMIT) -> list[str]:
    """Return words."""
    return re.findall(r"\\w+", f"{text}!")[:n]
'''


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n# a comment\n",
        lambda text: text.replace("LIMIT = 5", "LIMIT  =  5  # why"),
        lambda text: text.replace("LIMIT = 5", "LIMIT = (\n    5\n)"),
        lambda text: text.replace('"""Return words."""', "'Return words.'"),
        lambda text: text.replace("\n\n\n", "\n\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
    ],
)
def test_comments_and_formatting_change_no_identity(project: Project, change: Callable[[str], str]) -> None:
    assert identity_with(project, "m", m=change(SOURCE)) == identity_with(project, "m", m=SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 5", "LIMIT = 6"),
        ("LIMIT = 5", "LIMIT = 5.0"),
        ("LIMIT = 5", "LIMIT = True"),
        ("LIMIT = 5", "LIMIT = '5'"),
        ("LIMIT = 5", "LIMIT: int = 5"),
        ("LIMIT = 5", "LIMIT = -5"),
        ("LIMIT = 5", "LIMIT = 0x" + "f" * 5000),
        ("*, text", "text"),
        ("!", "?"),
        ("[:n]", "[n:]"),
        ("import re\n", "import re as re2\n"),
        ("def find", "async def find"),
    ],
)
def test_any_other_change_of_the_source_changes_the_identity(project: Project, old: str, new: str) -> None:
    assert old in SOURCE
    assert identity_with(project, "m", m=SOURCE.replace(old, new)) != identity_with(project, "m", m=SOURCE)


@pytest.mark.parametrize(
    "statement",
    [
        "import helper",
        "import helper as other",
        "from helper import x",
        "from . import helper",
        "from .helper import x",
        "import chains.helper",
        "from chains import helper",
        "from chains.helper import x",
        "def f():\n    import helper",
        "if False:\n    from helper import *",
        "import between",
    ],
)
def test_the_modules_a_module_imports_belong_to_its_identity(project: Project, statement: str) -> None:
    def identity(value: int) -> str:
        return identity_with(
            project, "m", m=statement, helper=f"x = {value}", between="import helper", other="y = 1"
        )

    assert identity(1) != identity(2)
    before = identity(1)
    assert identity_with(project, "m", m=statement, other="y = 2") == before


@pytest.mark.parametrize(
    "statement",
    ["from . import helper", "from .helper import x", "from .. import top", "import package.sub.helper"],
)
def test_packages_belong_to_the_identity_with_all_that_their_import_executes(
    project: Project, statement: str
) -> None:
    def identity(**changed: str) -> str:
        modules = {
            "sub/m": statement,
            "sub/helper": "x = 1",
            "sub/__init__": "y = 1",
            "top": "z = 1",
            **changed,
        }
        files = {f"chains/package/{name}.py": text for name, text in modules.items()}
        return code_of(project(files)).identity("package.sub.m")

    uses_top = statement == "from .. import top"
    assert identity(**{"sub/__init__": "y = 2"}) != identity()
    assert (identity(top="z = 2") != identity()) is uses_top
    assert (identity(**{"sub/helper": "x = 2"}) != identity()) is not uses_top


def test_modules_that_import_one_another_have_an_identity(project: Project) -> None:
    one = identity_with(project, "a", a="import b", b="import a")
    assert one == identity_with(project, "a", a="import b  # round", b="import a")


def test_an_identity_is_the_same_in_every_process(project: Project) -> None:
    root = project({"chains/m.py": SOURCE})
    program = (
        "import sys; from pathlib import Path; from llmops.definitions.code import Code\n"
        "from llmops.definitions.trees import WorkTree\n"
        "print(Code(WorkTree(Path(sys.argv[1]))).identity('m'))"
    )
    command = [sys.executable, "-c", program, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_of(root).identity("m")


SYNTAX = """
def f(a, /, b: int | None = 1, *c, d=..., **e) -> list[str]:
    'docs'
    match a:
        case {"k": [x, *_]} | C(y=1): return f"{x!r:>{b}} {a=} {{}}" "tail" if False else lambda: (yield)
    try: pass
    except* (A, B) as g: raise g from None
    with open(a) as h, i: del h[1:2, ...]
    return {**e, 1j: not (z := 1_000 @ -2), "ä\\u2028": {*c}, **{}}
class C(B, k=1): x: int; __slots__ = ()
"""


def test_the_identity_does_not_depend_on_the_version_of_python(project: Project) -> None:
    # The text of `ast.dump` does, from 3.11 to 3.12 and again to 3.13.
    assert (
        identity_with(project, "m", m=SYNTAX)
        == "3b512539d5da3408c4b03e2caa62697aa0f47576d8807ff288a239b087915f1c"
    )


# --- references ---------------------------------------------------------------------------------------------


def test_a_function_is_found_without_executing_anything(project: Project) -> None:  # S05
    root = project({"chains/m.py": "open('executed', 'w')\nraise SystemExit(3)\nasync def f(a, *, b=1): ..."})
    node = code_of(root).function_node("m:f")
    assert [argument.arg for argument in node.args.args] == ["a"]
    code_of(root).identity("m")
    assert not (root / "executed").exists()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("serch:find", r"no module chains/serch.py; did you mean 'search'\?"),
        ("zzz:find", "no module chains/zzz.py; write it there"),
        ("search:fnd", r"chains/search.py has no function 'fnd'; did you mean 'find'\?"),
        ("search:zzz", "has no function 'zzz'; functions there: find"),
        ("search:LIMIT", "has no function 'LIMIT'"),
        ("package.search:find", "no module chains/package/search.py"),
        ("..search:find", "no module"),
        ("os/path:join", "no module"),
    ],
)
def test_a_function_that_is_not_there_is_told_with_what_is(
    project: Project, reference: str, said: str
) -> None:
    root = project({"chains/search.py": "LIMIT = 1\ndef find(): ..."})
    with pytest.raises(UsageError, match=said):
        code_of(root).function_node(reference)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"def f(:\n", "chains/m.py:1:7: not Python: "),
        (b"x = 1\n  y = 2\n", "chains/m.py:2:"),
        (b"x = '\xe9'\n", "chains/m.py: byte 5 is not UTF-8"),
        (b"x = 1\0\n", "chains/m.py"),
        (b"x = " + b"(" * 5000 + b")" * 5000, "chains/m.py"),
    ],
)
def test_what_is_no_python_is_told_with_its_place(
    project: Project, source: bytes, said: str
) -> None:  # F66 F67
    code = code_of(project({"chains/m.py": source}))
    for look in (lambda: code.function_node("m:f"), lambda: code.identity("m")):
        with pytest.raises(DefinitionError) as caught:
            look()
        assert str(caught.value).startswith(said)


def test_a_module_that_is_a_link_to_the_outside_is_refused(project: Project) -> None:  # S06
    root = project({"chains/x.py": ""})
    (root / "chains/m.py").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="leads out of the project"):
        code_of(root).function_node("m:f")


# --- loading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "from helper import value",
        "from .helper import value",
        "from chains.helper import value",
        "from chains import helper; value = helper.value",
        "from . import helper; value = helper.value",
        "import helper; value = helper.value",
        "import chains.helper; value = chains.helper.value",
        "import chains.helper as h; value = h.value",
        "from package.inner import value",
        "from package import inner; value = inner.value",
        "import package.inner; value = package.inner.value",
        "from regular import value",
        "import regular.deep; value = regular.deep.value",
    ],
)
@pytest.mark.parametrize("when", ["on import", "when called"])
def test_a_module_imports_its_neighbours_however_it_is_written(
    project: Project, statement: str, when: str
) -> None:
    if when == "on import":
        source = f"{statement}\ndef f(): return value()"
    else:
        source = f"def f():\n    {statement}\n    return value()"
    root = project(
        {
            "chains/m.py": source,
            "chains/helper.py": "def value(): return 42",
            "chains/package/inner.py": "from helper import value",
            "chains/regular/__init__.py": "from .deep import value",
            "chains/regular/deep.py": "from ..helper import value",
        }
    )
    assert code_of(root).load("m:f")() == 42


def test_an_asterisk_imports_all_of_a_neighbour(project: Project) -> None:
    root = project(
        {"chains/m.py": "from helper import *\ndef f(): return value", "chains/helper.py": "value = 42"}
    )
    assert code_of(root).load("m:f")() == 42


def test_installed_packages_are_imported_as_ever(project: Project) -> None:
    root = project(
        {"chains/m.py": "import os.path, json as j\nfrom collections import abc\ndef f(): return os, j, abc"}
    )
    import collections.abc
    import json
    import os

    assert code_of(root).load("m:f")() == (os, json, collections.abc)


def test_dataclasses_with_postponed_annotations_work(project: Project) -> None:
    source = """
    from __future__ import annotations
    from dataclasses import dataclass
    from typing import ClassVar, NamedTuple

    @dataclass
    class Point:
        x: int
        n: ClassVar[int] = 0

    class Pair(NamedTuple):
        a: Point

    def f() -> int:
        return Pair(Point(3)).a.x
    """
    assert code_of(project({"chains/m.py": dedent(source)})).load("m:f")() == 3


def test_a_module_is_executed_once_and_knows_where_it_stands(project: Project) -> None:
    root = project({"chains/m.py": "n = []\ndef f():\n    n.append(1)\n    return len(n), __file__"})
    code = code_of(root)
    assert code.load("m:f")() == (1, str(root / "chains/m.py"))
    assert code.load("m:f")()[0] == 2
    assert code_of(root).load("m:f")()[0] == 1
    assert "m" not in sys.modules


def test_modules_that_import_one_another_load(project: Project) -> None:
    root = project(
        {
            "chains/a.py": "import b\ndef f(): return b.g()",
            "chains/b.py": "import a\ndef g(): return a.__name__[-1]",
        }
    )
    assert code_of(root).load("a:f")() == "a"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("1 / 0", "chains/m.py failed on import: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(7)", "chains/m.py failed on import: SystemExit: 7"),
        (
            "import no_such_package",
            "chains/m.py failed on import: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("from . import nothing", "cannot import name 'nothing'"),
        ("from ... import x", "no module ... beside chains/m.py"),
        ("import broken", "chains/broken.py failed on import: ValueError: no"),
    ],
)
def test_whatever_a_module_raises_on_import_is_told(
    project: Project, statement: str, said: str
) -> None:  # F78
    root = project(
        {"chains/m.py": f"{statement}\ndef f(): ...", "chains/broken.py": "raise ValueError('no')"}
    )
    code = code_of(root)
    for _ in range(2):
        with pytest.raises(UsageError, match=re.escape(said)):
            code.load("m:f")


def test_an_old_revision_runs_its_old_code_and_siblings_beside_today_s(project: Project, git: Git) -> None:
    root = project(
        {
            "chains/m.py": "import helper\ndef f(): return 'old', helper.g(), __file__",
            "chains/helper.py": "def g(): return 1",
        }
    )
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    project(
        {
            "chains/m.py": "import helper\ndef f(): return 'new', helper.g(), __file__",
            "chains/helper.py": "def g(): return 2",
        }
    )
    then, today = Code(GitTree(root, commit)), code_of(root)
    assert then.identity("m") != today.identity("m")
    assert today.load("m:f")() == ("new", 2, str(root / "chains/m.py"))
    assert then.load("m:f")() == ("old", 1, f"git:{commit[:12]}:chains/m.py")
    assert today.load("m:f")()[1] == 2
