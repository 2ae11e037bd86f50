"""Other tools' templates as ours: Jinja2, Nunjucks, Mustache and plain `{{name}}`. Nothing is ever rendered here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from jinja2 import nodes

from llmops.definitions.sandbox import ENVIRONMENT
from llmops.definitions.templates import TemplateError, parse_template

_SIGNS = re.compile(r"\{\{|\{%|\{#")
_CODE = re.compile(r"(\{\{.*?\}\}|\{%.*?%\})", re.DOTALL)
_TEXT = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_NUNJUCKS = (
    (re.compile(r"\{%(-?)\s*elseif\b"), r"{%\1 elif"),
    (re.compile(r"\{%(-?)\s*(end)?async(Each|All)\b"), r"{%\1 \2for"),
)
_NUNJUCKS_CODE = (
    (re.compile(r"!==|!="), "!="),
    (re.compile(r"===|=="), "=="),
    (re.compile(r"\s*&&\s*"), " and "),
    (re.compile(r"\s*\|\|\s*"), " or "),
    (re.compile(r"\|\s*dump\b"), "| tojson"),
    (re.compile(r"\|\s*safe\b"), ""),
    (re.compile(r"\b(?:null|undefined)\b"), "none"),
)
_PAIRS = re.compile(r"(\{%-?\s*for\s+\w+\s*,\s*\w+\s+in\s+)([\w.]+)(\s*-?%\})")
_MUSTACHE = re.compile(r"\{\{\{\s*([\w.]+)\s*\}\}\}|\{\{&\s*([\w.]+)\s*\}\}")
_SECTION = re.compile(r"\{\{\s*[#^/>!]")
_BRACES = re.compile(r"\{\{\s*([^{}\n]+?)\s*\}\}")


def literal(text: str) -> str:
    """Return a template that gives exactly this text."""
    return _SIGNS.sub(lambda found: "{{ '" + found[0] + "' }}", text)


def variables(template: str) -> frozenset[str]:
    """Return the names a template of ours looks up (TemplateError when it is none, or calls one of them)."""
    found = parse_template(template).variables
    for call in ENVIRONMENT.parse(template).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name):
            raise TemplateError(f"there is no function {call.node.name!r} in templates here", call.lineno)
    return found


def from_nunjucks(text: str) -> str:
    """Return a Nunjucks template as Jinja2 (TemplateError for what has no counterpart)."""
    for pattern, by in _NUNJUCKS:
        text = pattern.sub(by, text)
    text = _PAIRS.sub(r"\1\2 | items\3", text)
    text = _in_code(text, lambda code: _all(code, _NUNJUCKS_CODE))
    variables(text)
    return text


def from_mustache(text: str) -> str:
    """Return a Mustache template as Jinja2 (TemplateError for sections, whose meaning depends on the value)."""
    if found := _SECTION.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise TemplateError("a section of Mustache; write it with {% for %} or {% if %}", line)
    text = _MUSTACHE.sub(lambda match: "{{ " + (match[1] or match[2]) + " }}", text)
    variables(text)
    return text


def from_braces(text: str, names: Mapping[str, str]) -> str:
    """Return a text in which `{{name}}` stands for a value, and nothing else means anything, as a template.

    names: what those that are values are called here; `{{ }}` around any other is text.
    """
    parts = []
    end = 0
    for found in _BRACES.finditer(text):
        parts.append(literal(text[end : found.start()]))
        name = names.get(found[1])
        parts.append(literal(found[0]) if name is None else f"{{{{ {name} }}}}")
        end = found.end()
    return "".join([*parts, literal(text[end:])])


def braces_in(text: str) -> list[str]:
    """Return what stands between `{{` and `}}` in a text, in order, each once."""
    return list(dict.fromkeys(found[1] for found in _BRACES.finditer(text)))


def renamed(template: str, names: Mapping[str, str]) -> str:
    """Return a template that looks the same values up under other names.

    Raises TemplateError where that cannot be done word by word.
    """
    changed = {old: new for old, new in names.items() if old != new}
    if not changed:
        return template
    assigned = {name.name for name in ENVIRONMENT.parse(template).find_all(nodes.Name) if name.ctx != "load"}
    if both := sorted(assigned & {*changed}):
        raise TemplateError(f"{', '.join(both)} is an input and assigned to; rename one of the two")
    words = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, changed)) + r")(?!\w)(?!\s*=(?!=))")
    found = _in_code(template, lambda code: words.sub(lambda word: changed[word[1]], code))
    wanted = {changed.get(name, name) for name in variables(template)}
    if variables(found) != wanted:
        raise TemplateError(f"{', '.join(changed)} cannot be renamed in it")
    return found


def _in_code(text: str, change: Callable[[str], str]) -> str:
    """Return a template with its code changed, and neither its text nor the texts in its code."""
    parts = _CODE.split(text)
    for index in range(1, len(parts), 2):
        pieces = _TEXT.split(parts[index])
        pieces[::2] = [change(piece) for piece in pieces[::2]]
        parts[index] = "".join(pieces)
    return "".join(parts)


def _all(text: str, rules: Collection[tuple[re.Pattern[str], str]]) -> str:
    for pattern, by in rules:
        text = pattern.sub(by, text)
    return text


# --- turns of a text --------------------------------------------------------------------------------------------

_ROLE = re.compile(
    r"^[ \t]*#{0,6}[ \t]*(system|user|assistant|developer|function|tool)(?:\[[^\]\n]*\])?[ \t]*:[ \t]*$",
    re.IGNORECASE,
)
_OPENS = re.compile(r"\{%-?\s*(for|if|macro|call|filter|with|raw|block)\b")
_CLOSES = re.compile(r"\{%-?\s*end(for|if|macro|call|filter|with|raw|block)\b")
_WRITTEN_ROLE = re.compile(r"^[ \t]*#{0,6}[ \t]*\{\{[^{}]*\brole\b[^{}]*\}\}[ \t]*:[ \t]*$")
_INSIDE = "turns that a loop or condition writes are text of the message around them"
_AS_OURS = {"developer": "system", "function": "user", "tool": "user"}


def turns(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the messages of a text with role markers on lines of their own, and what is not as it was there.

    A marker inside a loop or a condition stays text: roles are there before anything is filled in.
    """
    found: list[tuple[str, list[str]]] = []
    said: list[str] = []
    depth = 0
    for line in text.split("\n"):
        marker = _ROLE.match(line)
        depth += len(_OPENS.findall(line)) - len(_CLOSES.findall(line))
        if marker and depth <= 0:
            role = marker[1].lower()
            if role in _AS_OURS:
                said.append(f"role {role} is {_AS_OURS[role]} here")
            found.append((_AS_OURS.get(role, role), []))
            continue
        if marker or _WRITTEN_ROLE.match(line):
            said.append(_INSIDE)
        if not found:
            if not line.strip():
                continue
            found.append(("system" if _has_markers(text) else "user", []))
        found[-1][1].append(line)
    messages = [(role, "\n".join(lines).strip()) for role, lines in found]
    return [message for message in messages if message[1]], list(dict.fromkeys(said))


def _has_markers(text: str) -> bool:
    return any(_ROLE.match(line) for line in text.split("\n"))
