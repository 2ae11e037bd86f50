"""Cases come back as they went in, whether they stayed in memory or lie on disk."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.case_file import Case, CaseFile, CaseWriter, cases_at, key_of
from tests.definitions.values import TEXT, json_values

ON_DISK = 1 << 21
"""Characters of a case that is too large to be kept in memory."""


def stored(cases: Iterable[Case], *, n_characters: int = 1) -> Sequence[Case]:
    writer = CaseWriter()
    for case in cases:
        writer.add(case, n_characters)
    return writer.finish()


def numbered(n: int) -> list[Case]:
    return [Case(id=f"c{number}", inputs={"q": number}) for number in range(n)]


LABELS = st.none() | TEXT


@given(
    st.lists(
        st.builds(
            Case,
            id=TEXT,
            inputs=st.dictionaries(TEXT, json_values(TEXT), max_size=3),
            expected=json_values(TEXT),
            metadata=st.dictionaries(TEXT, json_values(TEXT), max_size=2),
            split=LABELS,
            slice=LABELS,
            cluster=LABELS,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_case_on_disk_comes_back_exactly(cases: list[Case]) -> None:
    found = stored(cases, n_characters=ON_DISK)
    assert isinstance(found, CaseFile)
    assert [json.dumps(dict(case)) for case in found] == [json.dumps(dict(case)) for case in cases]
    assert [case.key() for case in found] == [case.key() for case in cases]


def test_few_small_cases_stay_in_memory_and_many_or_large_ones_do_not() -> None:
    assert isinstance(stored(numbered(1000)), tuple)
    assert isinstance(stored(numbered(1001)), CaseFile)
    assert isinstance(stored(numbered(3), n_characters=ON_DISK), CaseFile)
    assert stored([]) == ()


@pytest.mark.parametrize("n_characters", [1, ON_DISK])
def test_cases_are_a_sequence_and_so_are_some_of_them(n_characters: int) -> None:
    cases = stored(numbered(9), n_characters=n_characters)
    assert len(cases) == 9
    assert [case.id for case in cases] == [f"c{number}" for number in range(9)]
    assert (cases[-1].id, cases[0].id) == ("c8", "c0")
    assert [case.id for case in cases[2:4]] == ["c2", "c3"]
    some = cases_at(cases, [7, 1])
    assert [case.id for case in some] == ["c7", "c1"]
    assert len(cases_at(cases, [])) == 0
    with pytest.raises(IndexError):
        cases[9]
    with pytest.raises(IndexError):
        some[2]


def test_cases_are_read_from_several_threads_at_once() -> None:
    cases = stored(numbered(2000))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: cases[place].id, [place % 2000 for place in range(8000)]))
    assert found == [f"c{place % 2000}" for place in range(8000)]


def test_memory_stays_flat_however_many_cases_there_are() -> None:  # F65
    tracemalloc.start()
    try:
        cases = stored(Case(id=str(n), inputs={"q": f"question {n} " * 20}) for n in range(20_000))
        gc.collect()
        assert len(cases) == 20_000
        assert tracemalloc.get_traced_memory()[0] < 600_000
    finally:
        tracemalloc.stop()


def test_the_key_of_a_case_is_that_of_its_content() -> None:
    (case,) = numbered(1)
    assert case.key() == key_of(case.content())
    assert case.content() == '["c0",{"q":0},null,{},null,null,null]'
