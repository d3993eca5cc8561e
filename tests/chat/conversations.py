"""Conversations in OpenAI's format, for templates."""


def system(text: str) -> dict:
    return {"role": "system", "content": text}


def user(content) -> dict:
    return {"role": "user", "content": content}


def assistant(text, *calls: dict, **more) -> dict:
    made = {"role": "assistant", "content": text, **more}
    return {**made, "tool_calls": list(calls)} if calls else made


def call(identifier: str, name: str, **arguments) -> dict:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(identifier: str, text: str) -> dict:
    return {"role": "tool", "tool_call_id": identifier, "content": text}


def parts(*texts: str) -> list[dict]:
    return [{"type": "text", "text": text} for text in texts]


def tool(name: str, **properties) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": f"Look up {name}.", "parameters": schema}
    return {"type": "function", "function": function}


TOOLS = [
    tool("get_weather", city={"type": "string"}, day={"type": "integer", "maximum": 20991231}),
    tool("get_time", zone={"type": "string"}),
]
WEATHER = call("call_f00dfeed0001", "get_weather", city="Zürich", day=20260101)
TIME = call("call_f00dfeed0002", "get_time", zone='Europe/"Zurich"')
NESTED = call("call_7", "get_weather", city={"names": ["Bern", "Berne"], "zip": 3000000}, day=None)

CONVERSATIONS: dict[str, tuple[list[dict], list[dict]]] = {
    "one question": ([user("Why is the sky blue?")], []),
    "system": (
        [
            system("Answer briefly."), user("Hi"), assistant("Hello <you> & all"),
            user('Say "雪" twice\nplease'),
        ],
        [],
    ),
    "list content": ([user(parts("Compare these words: ", "lynx, puma"))], []),
    "late system": (
        [
            system("Be kind."), user("Hi"), assistant("Hello"),
            system("Be terse from here."), user("Name a cat"),
        ],
        [],
    ),
    "same role twice": ([user("First question"), user("Second question")], []),
    "equal questions": ([user("Hi"), assistant("Hello"), user("Hi")], []),
    "tool result": (
        [user("Weather?"), assistant("", WEATHER), result(WEATHER["id"], '{"celsius": -3}')],
        TOOLS,
    ),
    "several calls": (
        [
            system("Use tools."), user("Weather and time?"), assistant("", WEATHER, TIME),
            result(WEATHER["id"], "Snow ❄"), result(TIME["id"], "12:34"),
            assistant("It snows."), user("Thanks!"),
        ],
        TOOLS,
    ),
    "call without arguments": (
        [user("What now?"), assistant("", call("call_1", "get_time")), result("call_1", "noon")],
        TOOLS,
    ),
    "remark and call": (
        [user("Weather?"), assistant("One moment.", WEATHER), result(WEATHER["id"], "Fog")],
        TOOLS,
    ),
    "nested arguments": (
        [
            user("Book it"),
            assistant("", NESTED),
            result("call_7", "done"),
        ],
        TOOLS,
    ),
    "reasoning": (
        [user("2 + 2?"), assistant("4", reasoning_content="Two and two."), user("And 3 + 3?")],
        [],
    ),
    "reasoning in tags": ([user("2 + 2?"), assistant("<think>\nsum\n</think>\n\n4"), user("3 + 3?")], []),
    "reasoning and call": (
        [user("Time?"), assistant("", TIME, reasoning_content="I need a clock."), result(TIME["id"], "noon")],
        TOOLS,
    ),
}  # fmt: skip
