"""What is wrong with an agent: what its model could not be told of a tool, and what its models cannot keep."""

from __future__ import annotations

from llmops.check.models import program_findings
from llmops.definitions.chain import Tool, Use
from llmops.definitions.documents import Document, Location
from llmops.definitions.tools import describe_tool
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError
from llmops.steps import SettingError, open_use


def tool_findings(workspace: Workspace, document: Document, place: Location, tool: Tool) -> list[Finding]:
    """Return what is wrong with how a tool is told. Raises where what it uses does not exist."""
    problems = describe_tool(workspace, tool).problems
    return [document.finding((*place, *each.location), each.message, each.hint) for each in problems]


def agent_findings(workspace: Workspace, document: Document, place: Location, use: Use) -> list[Finding]:
    """Return what is wrong with an agent whose prompt and tools are right one by one."""
    assert use.agent is not None  # noqa: S101 - the caller has asked
    found = []
    seen: set[str] = set()
    for index, tool in enumerate(use.agent.tools):
        name = describe_tool(workspace, tool).name
        if name in seen:
            at = (*place, "agent", "tools", index, "name" if tool.name else tool.verb)
            hint = "give one of them another `name`"
            found.append(document.finding(at, f"two tools of this agent are called {name!r}", hint))
        seen.add(name)
    return found or _opened_findings(workspace, document, place, use)


def _opened_findings(workspace: Workspace, document: Document, place: Location, use: Use) -> list[Finding]:
    try:
        program = open_use(workspace, use, "the agent", seed=0)
    except DefinitionError:
        raise
    except SettingError as error:
        return [document.finding((*place, "agent", error.key), str(error))]
    except LlmopsError as error:
        return [document.finding((*place, "set" if use.set else "agent"), str(error))]
    return program_findings(workspace, document, place, program)
