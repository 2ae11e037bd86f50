"""The `agent` step: a model is asked, acts through tools, sees what came of it, and is asked again until it answers.

What is said stands in `protocol.py`, what a tool does in `tool.py`; here is when to go on and when to stop. All models
are asked through the one caller, so what was paid for is not asked again; tools are carried out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmops.definitions.base import canonical, identity_of, meaning_of
from llmops.definitions.chain import Agent, Use
from llmops.errors import LimitError, LlmopsError
from llmops.records import Message, Reply, Request, Span, Status
from llmops.steps.base import Context, Holding, Place, Program, end_of, filled, with_error
from llmops.steps.prompt import PromptProgram
from llmops.steps.protocol import Action, Native, Observation, Protocol, Text, Turn
from llmops.steps.side_by_side import side_by_side
from llmops.steps.tool import AgentTool

MOST_AT_ONCE = 16
"""Actions of one turn that are carried out; a model that asks for more has lost its way."""
SIDE_BY_SIDE = 8
TIMES = 3
"""How often the same action with the same outcome is a circle."""
WAY = 1
"""Version of what this code says to models; a change of it changes outputs."""

Key = tuple[str, str]


@dataclass(frozen=True)
class AgentProgram(Holding):
    """An agent with the prompt it begins with and its tools, by name, ready to be carried out."""

    agent: Agent
    prompt: PromptProgram
    tools: Mapping[str, AgentTool]
    protocol: Protocol
    identity: str
    kind: Literal["agent"] = "agent"

    @property
    def parts(self) -> Mapping[str, Program]:
        """The prompt, and what each tool carries out as `tools.NAME`."""
        tools = {f"tools.{name}": tool.bound.program for name, tool in self.tools.items()}
        return {"prompt": self.prompt, **tools}

    @property
    def least_calls(self) -> int:
        """One: it may answer at once."""
        return 1

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:  # noqa: ARG002
        """Return the span whose output is the answer: text, or the object that the prompt's format asks for."""
        index = context.trace.open()
        session = Session(self, context, place, index, place.start_s)
        given: Mapping[str, Any] = {}
        try:
            given = filled(self.agent.arguments, place.scope, place.name)
            output, status = await session.answer(given)
        except LlmopsError as error:
            span = place.span(index, self.kind, given, duration_s=session.now_s - place.start_s)
            context.trace.close(with_error(span, error))
            raise
        took_s = session.now_s - place.start_s
        span = place.span(index, self.kind, given, output=output, status=status, duration_s=took_s)
        return context.trace.close(span)


@dataclass
class Session:
    """One carrying out of an agent. index: of its span. now_s: where it stands on the timeline.

    done: what was done in each step so far, and what came of it.
    """

    program: AgentProgram
    context: Context
    place: Place
    index: int
    now_s: float
    messages: list[Message] = field(default_factory=list)
    done: list[list[tuple[Key, str]]] = field(default_factory=list)

    async def answer(self, given: Mapping[str, Any]) -> tuple[Any, Status]:
        """Return the answer, and whether it is whole or was given because a limit was reached."""
        agent, protocol, prompt = self.program.agent, self.program.protocol, self.program.prompt
        first = prompt.request(given, self.context)
        self.messages = list(protocol.begin(first.messages, first.response_format))
        shown: Mapping[str, Any] = given
        while True:
            turn, reply = await self._turn(shown)
            if turn.answer is not None:
                return self._value(turn.answer, reply)
            circle = self._circle(turn)
            if agent.on_limit == "fail" and (stop := circle or self._limit()):
                raise stop
            observations = await self._act(turn.actions, circle)
            self.done.append(list(zip(_keys(turn), _texts(turn, observations), strict=True)))
            self.messages += [turn.said, *self._told(turn, observations)]
            if stop := circle or self._limit():
                if agent.on_limit == "fail":
                    raise stop
                return await self._last(stop)
            shown = {"observations": _texts(turn, observations)}

    async def _turn(self, shown: Mapping[str, Any]) -> tuple[Turn, Reply]:
        """Return what the model wants next."""
        protocol = self.program.protocol
        reply = await self._ask(shown, _request_of(self.program, self.messages, protocol.tools))
        return protocol.read(reply), reply

    async def _ask(self, shown: Mapping[str, Any], request: Request) -> Reply:
        context = self.context
        name = f"{self.place.name}[{len(self.done)}]"
        place = Place(name, self.index, self.now_s, self.place.scope)
        span, reply = await self.program.prompt.ask(
            request, shown, context, place, context.trace.open(), _said
        )
        self.now_s = end_of([span], self.now_s)
        return reply

    async def _last(self, stop: LimitError) -> tuple[Any, Status]:
        """Return the answer that the model gives when no tool is left to it."""
        protocol = self.program.protocol
        text = f"No tool can be used any more ({stop.kind}). Answer now, from what is known."
        self.messages.append(protocol.told(text))
        reply = await self._ask({"told": text}, _request_of(self.program, self.messages, ()))
        value, _ = self._value(protocol.last(reply), reply)
        self.context.trace.truncated = True
        return value, Status.TRUNCATED

    def _value(self, answer: str, reply: Reply) -> tuple[Any, Status]:
        trace = self.context.trace
        trace.truncated = trace.truncated or reply.status is Status.TRUNCATED
        return self.program.prompt.value(answer, trace), Status.OK

    def _told(self, turn: Turn, observations: Sequence[Observation]) -> Sequence[Message]:
        protocol = self.program.protocol
        return [protocol.told(turn.problem)] if turn.problem else protocol.observed(turn, observations)

    # --- acting -----------------------------------------------------------------------------------------------

    async def _act(self, actions: Sequence[Action], circle: LimitError | None) -> list[Observation]:
        """Return what came of each action, in their order; on the timeline all begin at once."""
        start_s = self.now_s

        async def act(number: int) -> Observation:
            action = actions[number]
            problem = self._problem_with(action)
            if circle is not None:
                problem = f"not carried out: {circle}"
            elif number >= MOST_AT_ONCE:
                problem = f"not carried out: at most {MOST_AT_ONCE} in one turn"
            place = Place(action.tool, self.index, start_s, self.place.scope)
            if problem is not None:
                return self._refused(action, problem, place)
            span, seen = await self.program.tools[action.tool].carry_out(
                action.arguments, self.context, place
            )
            self.now_s = max(self.now_s, end_of([span], start_s))
            return seen

        return await side_by_side(len(actions), SIDE_BY_SIDE, act)

    def _problem_with(self, action: Action) -> str | None:
        tools = self.program.tools
        if action.tool not in tools:
            return f"there is no tool of that name; there are: {', '.join(tools)}"
        if action.problem is not None:
            return action.problem
        problem = tools[action.tool].problem_with(action.arguments)
        return None if problem is None else f"the input does not fit: {problem}"

    def _refused(self, action: Action, problem: str, place: Place) -> Observation:
        """Leave the span of an action that was not carried out, and say why."""
        trace = self.context.trace
        span = place.span(trace.open(), "tool", action.arguments)
        trace.close(with_error(span, LimitError("refused", problem)))
        return Observation(action.tool, problem, is_error=True)

    # --- stopping ---------------------------------------------------------------------------------------------

    def _limit(self) -> LimitError | None:
        """Return the limit that has been reached, if one has."""
        agent, below = self.program.agent, list(self._below())
        used = [span.usage for span in below if span.usage is not None]
        reached: dict[str, float] = {
            "max_steps": self._n_steps,
            "max_tokens": sum(usage.input_tokens + usage.output_tokens for usage in used),
            "max_s": self.now_s - self.place.start_s,
            "max_usd": sum(span.cost_usd or 0.0 for span in below),
        }
        for kind, amount in reached.items():
            most = getattr(agent, kind)
            if most is not None and amount >= most:
                return self._stop(kind, f"it may take {most:g} and has taken {amount:g}")
        return None

    @property
    def _n_steps(self) -> int:
        trace = self.context.trace
        return sum(span.parent == self.index and span.kind == "prompt" for span in trace.finished())

    def _below(self) -> Iterator[Span]:
        """Yield the finished spans below the agent's own; parents stand before their children."""
        above = {self.index}
        for span in self.context.trace.spans[self.index :]:
            if span is not None and span.parent in above:
                above.add(span.index)
                yield span

    def _circle(self, turn: Turn) -> LimitError | None:
        """Return that the model goes in circles: it does again what twice gave the same, or a whole round of steps."""
        for key in dict.fromkeys(_keys(turn)):
            seen = [text for step in self.done for done, text in step if done == key][1 - TIMES :]
            if len(seen) == TIMES - 1 and len(set(seen)) == 1:
                what = f"asks {key[0]}" if key[0] else "says what is no turn"
                return self._stop("loop", f"the model {what} for the {TIMES}rd time, with the same input")
        n_steps = len(self.done) + 1
        for period in range(2, n_steps // 2 + 1):
            before, after = self.done[-2 * period + 1 : -period + 1], self.done[len(self.done) - period + 1 :]
            is_round = [key for key, _ in before[-1]] == _keys(turn) and before[:-1] == after
            if is_round:
                return self._stop("loop", f"the model repeats its last {period} steps")
        return None

    def _stop(self, kind: str, why: str) -> LimitError:
        return LimitError(kind, f"{self.place.name}: stopped by {kind} after {self._n_steps} steps: {why}")


def _keys(turn: Turn) -> list[Key]:
    """Return what tells one action from another; a turn that is none counts as itself."""
    if turn.problem is not None:
        return [("", turn.said.text)]
    return [(action.tool, canonical([action.arguments, action.problem])) for action in turn.actions]


def _texts(turn: Turn, observations: Sequence[Observation]) -> list[str]:
    return [turn.problem] if turn.problem is not None else [seen.text for seen in observations]


def _said(reply: Reply) -> Any:
    """Return what the span of a turn shows: what the model wrote, and which tools it asked for."""
    if not reply.tool_calls:
        return reply.text
    calls = [{"tool": call.name, "input": call.arguments} for call in reply.tool_calls]
    return {"thought": reply.text, "actions": calls}


def _request_of(program: AgentProgram, messages: Sequence[Message], tools: Sequence[Any]) -> Request:
    prompt = program.prompt
    is_native = program.protocol.name == "native"
    return Request(
        messages=tuple(messages),
        parameters=prompt.parameters,
        response_format=prompt.renderer.prompt.response_format if is_native else None,
        tools=tuple(tools),
    )


def open_agent(
    agent: Agent, prompt: PromptProgram, tools: Sequence[AgentTool], *, is_native: bool
) -> AgentProgram:
    """Return an agent that begins with a prompt and has these tools."""
    offered = tuple(tool.offered for tool in tools)
    protocol: Protocol = Native(offered) if is_native else Text(offered)
    own = meaning_of(agent, without={"prompt", "tools", "mode"})
    identity = identity_of(
        {
            "agent": own,
            "way": [WAY, protocol.name],
            "prompt": prompt.identity,
            "tools": [_meaning(tool) for tool in tools],
        }
    )
    return AgentProgram(agent, prompt, {tool.spec.name: tool for tool in tools}, protocol, identity)


def _meaning(tool: AgentTool) -> list[Any]:
    use: Use = tool.bound.use
    _, templates = use.filled
    return [tool.offered.model_dump(mode="json"), dict(templates), tool.bound.program.identity]
