from promptflow import tool


@tool
def apologise(text: str) -> str:
    return "Sorry. " + text
