import shelves
from promptflow.core import tool
from shelves import PASSAGES


@tool
def find(question: str, top: int, connection: "CustomConnection" = None, shown: int = 1, plain: bool = True) -> dict:
    """Return the passages that share most words with a question."""
    words = set(question.lower().split())
    ranked = sorted(PASSAGES, key=lambda text: -len(words & set(text.lower().split())))
    assert (shown, plain) == (2, False), "texts are given as what they spell"
    return {"passages": ranked[:top], "first": {"text": ranked[0]}, "empty": not shelves.PASSAGES}
