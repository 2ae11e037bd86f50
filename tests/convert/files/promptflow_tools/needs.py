from promptflow import tool


@tool
def second(text):
    return text
