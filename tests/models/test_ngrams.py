"""Features that never change, and neighbours that agree with the plain definition of cosine."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import unicodedata
import zlib
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.models.ngrams import DIMENSION, WORD, Neighbours, features, vectors, words

HALF = DIMENSION // 2
TEXTS = st.text(alphabet="abcdeé 界.", max_size=24)
POOL = [
    "Where is my parcel?",
    "I was charged twice for one order.",
    "The kettle arrived with a broken lid.",
    "Where is my parcel?",
    "How do I reset my password?",
]
GOLDEN_VECTOR = [
    *(0.1714985851, -0.3429971703, 0.1714985851, -0.6859943406, 0.3429971703, 0.0),
    *(-0.3429971703, -0.3429971703),
]
GOLDEN_INDICES = [
    375,
    17082,
    19948,
    23948,
    26575,
    31448,
    32085,
    39914,
    61548,
    62790,
    63451,
    63871,
    100569,
    100613,
    106567,
    163074,
    163275,
    178905,
    259009,
    261966,
    262023,
]
GOLDEN_WEIGHTS = {
    19948: 1.6931471805599454,
    39914: 1.6931471805599454,
    62790: 1.6931471805599454,
    262023: 1.6931471805599454,
}


def plain_features(text: str) -> dict[int, float]:
    """Return the features as their description reads, one gram at a time."""
    found = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    pairs = [f"{left} {right}" for left, right in pairwise(found)]
    times = Counter(HALF + fold(zlib.crc32(gram.encode())) for gram in found + pairs)
    for word in found:
        padded = f" {word} "
        for size in (3, 4, 5):
            runs = [padded[start : start + size] for start in range(len(padded) - size + 1)]
            times.update(fold(fnv(run)) for run in runs)
    return {index: 1 + math.log(count) for index, count in times.items()}


def fnv(run: str) -> int:
    value = 2166136261
    for character in run:
        value = ((value ^ ord(character)) * 16777619) % 0x100000000
    return value


def fold(value: int) -> int:
    return (value ^ (value >> 15)) % HALF


def plain_cosine(pool: list[str], text: str, place: int) -> float:
    """Return the cosine of tf-idf weighted features, as textbooks write it."""
    documents = [plain_features(one) for one in pool]

    def weighted(of_text: dict[int, float]) -> dict[int, float]:
        n_holding = {index: sum(index in document for document in documents) for index in of_text}
        return {
            index: weight * (math.log((1 + len(pool)) / (1 + n_holding[index])) + 1)
            for index, weight in of_text.items()
        }

    left, right = weighted(plain_features(text)), weighted(documents[place])
    norms = math.hypot(*left.values()) * math.hypot(*right.values())
    return sum(value * right.get(index, 0.0) for index, value in left.items()) / norms if norms else 0.0


def run_python(code: str, hash_seed: str = "0") -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_features_have_golden_values() -> None:
    indices, weights = features("Go, go to Żółw!")
    assert indices.tolist() == GOLDEN_INDICES
    assert weights.tolist() == pytest.approx([GOLDEN_WEIGHTS.get(index, 1.0) for index in GOLDEN_INDICES])


def test_features_are_the_same_in_every_process() -> None:
    code = "from llmops.models.ngrams import features as f; print([part.tolist() for part in f('Żółw, go!')])"
    assert run_python(code, "1") == run_python(code, "2")


def test_importing_costs_no_numpy() -> None:
    code = "import sys, llmops.models.ngrams, llmops.models.embedded; print('numpy' in sys.modules)"
    assert run_python(code).strip() == "False"


@given(TEXTS)
def test_features_are_those_of_the_plain_definition(text: str) -> None:
    indices, weights = features(text)
    expected = plain_features(text)
    assert indices.tolist() == sorted(expected)
    assert weights.tolist() == pytest.approx([expected[index] for index in sorted(expected)])


@given(st.text())
def test_any_text_has_ascending_features_below_the_dimension(text: str) -> None:
    indices, weights = features(text)
    found = indices.tolist()
    assert found == sorted(set(found))
    assert all(0 <= index < DIMENSION for index in found)
    assert all(weight >= 1 for weight in weights.tolist())


@pytest.mark.parametrize("other", ["PARCEL", "ｐａｒｃｅｌ", " parcel! ", "_parcel_"])
def test_case_width_and_punctuation_make_no_difference(other: str) -> None:
    assert features(other)[0].tolist() == features("parcel")[0].tolist()


def test_characters_are_taken_inside_words_only_and_pairs_see_the_order() -> None:
    one, other = features("red kettle")[0].tolist(), features("kettle red")[0].tolist()
    assert [index for index in one if index < HALF] == [index for index in other if index < HALF]
    assert one != other


def test_an_underscore_separates_words() -> None:
    assert words("card_payment_Fee") == ["card", "payment", "fee"]


@given(st.lists(TEXTS, min_size=1, max_size=5), TEXTS)
def test_similarities_are_cosines(pool: list[str], text: str) -> None:
    expected = [plain_cosine(pool, text, place) for place in range(len(pool))]
    assert Neighbours(pool).similarities(text).tolist() == pytest.approx(expected, abs=1e-8)


def test_the_nearest_come_first_and_equal_ones_by_position() -> None:
    found = Neighbours(POOL).nearest("where is my parcel", 3)
    assert [place for place, _ in found[:2]] == [0, 3]
    assert found[0][1] == found[1][1] == pytest.approx(1)
    assert found[2][1] < 1


def test_positions_left_out_are_never_returned() -> None:
    found = Neighbours(POOL).nearest("where is my parcel", 10, exclude=[0, 3])
    assert sorted(place for place, _ in found) == [1, 2, 4]


@given(st.lists(TEXTS, max_size=8), TEXTS, st.integers(0, 9), st.sets(st.integers(0, 7)))
def test_nearest_is_the_head_of_all_sorted_by_similarity(
    pool: list[str], text: str, k: int, exclude: set[int]
) -> None:
    exclude = {place for place in exclude if place < len(pool)}
    neighbours = Neighbours(pool)
    similarities = neighbours.similarities(text).tolist()
    order = sorted(set(range(len(pool))) - exclude, key=lambda place: (-similarities[place], place))
    assert neighbours.nearest(text, k, exclude) == [(place, similarities[place]) for place in order[:k]]


@given(st.permutations(POOL), st.sampled_from(POOL))
def test_the_order_of_the_pool_changes_no_similarity(pool: list[str], text: str) -> None:
    by_text = dict(zip(pool, Neighbours(pool).similarities(text).tolist(), strict=True))
    assert by_text == dict(zip(POOL, Neighbours(POOL).similarities(text).tolist(), strict=True))


def test_a_text_without_letters_is_near_nothing() -> None:
    neighbours = Neighbours(["???", "parcel"])
    assert neighbours.similarities("!!!").tolist() == [0, 0]
    assert neighbours.similarities("parcel").tolist() == [0, pytest.approx(1)]


def test_an_empty_pool_has_no_neighbours() -> None:
    assert len(Neighbours([])) == 0
    assert Neighbours([]).nearest("parcel", 3) == []


# --- vectors ----------------------------------------------------------------------------------------------


@given(st.lists(TEXTS, max_size=5), st.integers(1, 64))
def test_vectors_have_the_size_asked_for_and_length_one(texts: list[str], size: int) -> None:
    found = vectors(texts, size)
    assert found.shape == (len(texts), size)
    assert [math.isclose(float(vector @ vector), 1) for vector in found] == [True] * len(texts)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_text_has_the_same_vector_alone_and_among_others(texts: list[str]) -> None:
    together = vectors(texts, 32).tolist()
    assert together == [vectors([text], 32)[0].tolist() for text in texts]


def test_the_more_texts_share_the_nearer_their_vectors_are() -> None:
    parcel, again, lost, card = vectors(
        ["Where is my parcel?", "where is MY parcel", "My parcel is lost.", "I was charged twice."], 1024
    )
    assert parcel @ again == pytest.approx(1)
    assert 0.2 < parcel @ lost < 0.9
    assert abs(parcel @ card) < 0.1


def test_folded_vectors_keep_the_cosines_of_the_features_about() -> None:
    def cosine(one: str, other: str) -> float:
        (places, weights), (others, other_weights) = features(one), features(other)
        left = dict(zip(places.tolist(), weights.tolist(), strict=True))
        right = dict(zip(others.tolist(), other_weights.tolist(), strict=True))
        product = sum(weight * right.get(place, 0.0) for place, weight in left.items())
        return float(product / math.sqrt(sum(weights**2) * sum(other_weights**2)))

    found = vectors(POOL, 4096)
    for place, text in enumerate(POOL):
        for other, another in enumerate(POOL):
            assert found[place] @ found[other] == pytest.approx(cosine(text, another), abs=0.06)


def test_vectors_are_the_same_everywhere() -> None:
    assert vectors(["parcel"], 8)[0].tolist() == pytest.approx(GOLDEN_VECTOR)
    assert vectors(["?!"], 4).tolist() == [[1, 0, 0, 0]]
