"""Vectors: cosines, and the matched filter that measures by one user's own rows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from langchain_mem0_scoped.ranking import vectors as meaning
from langchain_mem0_scoped.ranking.vectors import cosine, covariance_sketch, matched_filter, unit_vector

DIMS = 8
components = st.floats(-1, 1, width=32)


def vectors_of(count: int, dims: int = DIMS) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, dims), elements=components)


def some_rows(count: int, dims: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows that have much in common, as embeddings of texts do."""
    random = np.random.default_rng(seed)
    spread = random.standard_normal((count, dims)) * np.linspace(2, 0.2, dims)
    return np.stack([unit_vector(row) for row in spread + random.standard_normal(dims)])


class TestUnitVector:
    @given(arrays(np.float32, DIMS, elements=st.floats(-1e6, 1e6, width=32)))
    def test_has_length_1_or_0(self, vector: NDArray[np.float32]) -> None:
        unit = unit_vector(vector)
        assert unit.dtype == np.float32
        assert float(np.linalg.norm(unit)) == pytest.approx(1.0 if vector.any() else 0.0)


class TestCosine:
    def test_is_the_cosine(self) -> None:
        rows = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
        assert cosine(rows, [5, 0]).tolist() == pytest.approx([1, 0.6, 0, 0, 0])

    @pytest.mark.parametrize("query", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [1e300, 1e300]])
    def test_a_query_without_a_direction_is_like_nothing(self, query: list[float]) -> None:
        assert cosine(np.eye(2, dtype=np.float32), query).tolist() == [0, 0]

    @given(st.data(), st.integers(1, 40), st.sampled_from([1, 3, 8, 256]))
    def test_a_row_scores_the_same_to_the_bit_wherever_it_stands(
        self, data: st.DataObject, count: int, dims: int
    ) -> None:
        random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        rows = np.stack([unit_vector(row) for row in random.standard_normal((count, dims))])
        query = random.standard_normal(dims)
        order = np.array(data.draw(st.permutations(range(count))))
        together = cosine(rows, query)
        assert cosine(np.ascontiguousarray(rows[order]), query).tobytes() == together[order].tobytes()
        at = data.draw(st.integers(0, count - 1))
        assert cosine(rows[at : at + 1], query).tobytes() == together[at : at + 1].tobytes()

    @given(st.data(), st.integers(1, 12))
    def test_stays_within_0_and_1(self, data: st.DataObject, count: int) -> None:
        rows = np.stack([unit_vector(row) for row in data.draw(vectors_of(count))])
        scores = cosine(rows, data.draw(vectors_of(1))[0])
        assert ((scores >= 0) & (scores <= 1)).all()


def reference(
    rows: NDArray[np.float32], against: meaning.CovarianceSketch, query: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The same with the covariance written out, and conjugate gradients in double precision."""
    sample = against.sample.astype(np.float64)
    mean = sample.sum(axis=0) / against.weight
    covariance = sample.T @ sample / against.weight - np.outer(mean, mean) + against.ridge * np.eye(len(mean))
    wanted = query - mean
    found, left, step = np.zeros_like(wanted), wanted.copy(), wanted.copy()
    for _ in range(3):
        if left @ left < 1e-14:
            break
        moved = covariance @ step
        far = (left @ left) / (step @ moved)
        found, smaller = found + far * step, left - far * moved
        step = smaller + (smaller @ smaller) / (left @ left) * step
        left = smaller
    deviations: NDArray[np.float64] = (rows @ found - mean @ found) / math.sqrt(found @ wanted)
    return deviations


class TestMatched:
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 40, 256, 300, 900])
    @pytest.mark.parametrize("dims", [8, 64])
    def test_equals_what_is_written_out(self, count: int, dims: int) -> None:
        rows = some_rows(count, dims)
        against = covariance_sketch(rows)
        for query in some_rows(20, dims, seed=1):
            deviations, cosines = matched_filter(rows, against, query)
            np.testing.assert_allclose(deviations, reference(rows, against, query), atol=2e-3)
            np.testing.assert_allclose(cosines, rows @ query, atol=1e-6)

    def test_what_all_rows_have_in_common_says_little(self) -> None:
        common, rare, other = np.eye(DIMS)[:3]
        rows = np.stack([unit_vector(common + 0.3 * other)] * 30 + [unit_vector(common + 0.3 * rare)])
        query = unit_vector(common + 0.2 * rare)
        deviations, cosines = matched_filter(rows, covariance_sketch(rows), query)
        assert cosines.max() - cosines.min() < 0.1
        assert deviations[-1] > 2 * deviations[0]

    @pytest.mark.parametrize("count", [1, 5, 300])
    def test_a_query_without_a_direction_lies_nowhere(self, count: int) -> None:
        rows = some_rows(count, DIMS)
        deviations, cosines = matched_filter(rows, covariance_sketch(rows), np.zeros(DIMS, np.float32))
        assert not deviations.any()
        assert not cosines.any()

    @given(st.data(), st.integers(1, 30))
    def test_is_finite_whatever_the_rows_are(self, data: st.DataObject, count: int) -> None:
        rows = np.stack([unit_vector(row) for row in data.draw(vectors_of(count))])
        deviations, cosines = matched_filter(rows, covariance_sketch(rows), unit_vector(data.draw(vectors_of(1))[0]))
        assert np.isfinite(deviations).all()
        assert np.isfinite(cosines).all()

    @pytest.mark.parametrize("count", [1, 2, 31, 256, 700])
    @pytest.mark.parametrize("dims", [32, 256])
    def test_where_in_memory_the_rows_lie_changes_no_bit(self, count: int, dims: int) -> None:
        rows, query = some_rows(count, dims), some_rows(1, dims, seed=3)[0]
        expected = matched_filter(rows, covariance_sketch(rows), query)[0].tobytes()
        for shift in (1, 2, 3, 5, 7, 13):
            room = np.empty(rows.size + shift, np.float32)[shift:]
            room[:] = rows.ravel()
            moved = room.reshape(rows.shape)
            assert matched_filter(moved, covariance_sketch(moved), query)[0].tobytes() == expected

    def test_equal_rows_lie_equally_far(self) -> None:
        rows = some_rows(400, DIMS)
        rows = np.concatenate((rows, rows[::-1]))
        deviations, _ = matched_filter(rows, covariance_sketch(rows), some_rows(1, DIMS, seed=3)[0])
        assert deviations[:400].tobytes() == deviations[400:][::-1].tobytes()

    def test_a_large_sample_holds_each_row_once_and_both_of_two_who_take_turns(self) -> None:
        for count in (257, 600, 10_000):
            rows = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
            places = covariance_sketch(rows).sample[:, 0] / 2
            assert len(set(places.tolist())) == len(places)
            assert 0.4 < (places % 2).mean() < 0.6
            assert len(places) > 200
