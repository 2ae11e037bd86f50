"""Functions for the steps of review_card.chain.yaml."""


def count_words(text: str) -> int:
    """Return how many words a text has."""
    return len(text.split())
