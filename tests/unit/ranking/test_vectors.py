"""Vectors: cosines and the matched filter equal their formulas, and the bits of a row depend on nothing else."""

import ast
import inspect
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from langchain_mem0_scoped.ranking import bm25, context, scoring, vectors
from langchain_mem0_scoped.ranking.vectors import (
    PRIOR_ROWS,
    CovarianceSketch,
    cosine,
    covariance_sketch,
    matched_filter,
    unit_vector,
)

DIMS = 8
components = st.floats(-1, 1, width=32)


def vectors_of(count: int, dims: int = DIMS) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, dims), elements=components)


def some_rows(count: int, dims: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows that have much in common, as embeddings of texts do."""
    random = np.random.default_rng(seed)
    spread = random.standard_normal((count, dims)) * np.linspace(2, 0.2, dims)
    return np.stack([unit_vector(row) for row in spread + random.standard_normal(dims)])


def at_other_addresses(rows: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Copies of the rows whose memory is aligned differently."""
    for shift in (1, 2, 3, 5, 7, 13):
        buffer = np.empty(rows.size + shift, np.float32)[shift:]
        buffer[:] = rows.ravel()
        yield buffer.reshape(rows.shape)


def products_row_by_row(rows: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The dot product of each row and the query, each computed by itself."""
    return np.array([np.einsum("j,j->", row.copy(), query) for row in rows], np.float32)


class TestUnitVector:
    @given(arrays(np.float32, DIMS, elements=st.floats(-1e6, 1e6, width=32)))
    def test_has_length_1_or_0(self, vector: NDArray[np.float32]) -> None:
        unit = unit_vector(vector)
        assert unit.dtype == np.float32
        assert float(np.linalg.norm(unit)) == pytest.approx(1.0 if vector.any() else 0.0)

    @pytest.mark.parametrize("length", [1.0 - 1e-3, 1.0 - 1e-5, 1.0 + 1e-5, 1.005])
    def test_length_near_1_is_made_1(self, length: float) -> None:
        assert abs(float(unit_vector([length, 0.0])[0]) - 1.0) < 1e-6


class TestCosine:
    def test_is_the_cosine_from_0_to_1(self) -> None:
        rows = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
        assert cosine(rows, [5, 0]).tolist() == pytest.approx([1, 0.6, 0, 0, 0])

    @pytest.mark.parametrize("query", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [1e300, 1e300]])
    def test_query_without_a_direction_scores_0(self, query: list[float]) -> None:
        assert cosine(np.eye(2, dtype=np.float32), query).tolist() == [0, 0]

    @given(st.data(), st.integers(1, 40), st.sampled_from([1, 3, 8, 256]))
    def test_position_changes_no_bit(self, data: st.DataObject, count: int, dims: int) -> None:
        random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        rows = np.stack([unit_vector(row) for row in random.standard_normal((count, dims))])
        query = random.standard_normal(dims)
        order = np.array(data.draw(st.permutations(range(count))))
        scores = cosine(rows, query)
        assert cosine(np.ascontiguousarray(rows[order]), query).tobytes() == scores[order].tobytes()
        row = data.draw(st.integers(0, count - 1))
        assert cosine(rows[row : row + 1], query).tobytes() == scores[row : row + 1].tobytes()

    @pytest.mark.parametrize("count", [2, 31, 600])
    @pytest.mark.parametrize("dims", [32, 256, 1536])
    def test_bits_are_those_of_each_row_by_itself(self, count: int, dims: int) -> None:
        rows, query = some_rows(count, dims), some_rows(1, dims, seed=3)[0]
        expected = np.clip(products_row_by_row(rows, unit_vector(query)), 0.0, 1.0).tobytes()
        assert cosine(rows, query).tobytes() == expected
        for moved in at_other_addresses(rows):
            assert cosine(moved, query).tobytes() == expected

    @given(st.data(), st.integers(1, 12))
    def test_is_between_0_and_1(self, data: st.DataObject, count: int) -> None:
        rows = np.stack([unit_vector(row) for row in data.draw(vectors_of(count))])
        scores = cosine(rows, data.draw(vectors_of(1))[0])
        assert ((scores >= 0) & (scores <= 1)).all()


def reference(rows: NDArray[np.float32], sketch: CovarianceSketch, query: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same with the covariance written out and conjugate gradients, in double precision."""
    sample = sketch.sample.astype(np.float64)
    mean = sample.sum(axis=0) / sketch.weight
    covariance = sample.T @ sample / sketch.weight - np.outer(mean, mean) + sketch.ridge * np.eye(len(mean))
    target = query - mean
    solution, residual, direction = np.zeros_like(target), target.copy(), target.copy()
    for _ in range(3):
        if residual @ residual < 1e-14:
            break
        image = covariance @ direction
        length = (residual @ residual) / (direction @ image)
        solution, smaller = solution + length * direction, residual - length * image
        direction = smaller + (smaller @ smaller) / (residual @ residual) * direction
        residual = smaller
    deviations: NDArray[np.float64] = (rows @ solution - mean @ solution) / math.sqrt(solution @ target)
    return deviations


class TestCovarianceSketch:
    def test_counts_the_prior_rows(self) -> None:
        rows = some_rows(12, DIMS)
        sketch = covariance_sketch(rows)
        assert sketch.is_complete
        assert sketch.weight == 12 + PRIOR_ROWS == 32
        np.testing.assert_allclose(sketch.mean, rows.sum(axis=0) / 32, atol=1e-6)

    def test_ridge_is_6_times_the_mean_variance_plus_that_of_the_prior_rows(self) -> None:
        rows = some_rows(12, DIMS)
        sketch = covariance_sketch(rows)
        mean = rows.sum(axis=0) / 32
        # benchmarks/RECALL.md reports figures for these values.
        assert sketch.ridge == pytest.approx(6 * (1 - mean @ mean) / DIMS + 20 / 32 / 32, rel=1e-5)

    def test_large_sample_holds_each_row_once_and_both_of_two_alternating_speakers(self) -> None:
        for count in (257, 600, 10_000):
            rows = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
            sketch = covariance_sketch(rows)
            sampled = sketch.sample[:, 0] / 2
            assert not sketch.is_complete
            assert len(set(sampled.tolist())) == len(sampled)
            assert 0.4 < (sampled % 2).mean() < 0.6
            assert 200 < len(sampled) <= 256


class TestMatchedFilter:
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 40, 256, 300, 900])
    @pytest.mark.parametrize("dims", [8, 64])
    def test_equals_the_formula(self, count: int, dims: int) -> None:
        rows = some_rows(count, dims)
        sketch = covariance_sketch(rows)
        for query in some_rows(20, dims, seed=1):
            deviations, cosines = matched_filter(rows, sketch, query)
            np.testing.assert_allclose(deviations, reference(rows, sketch, query), atol=2e-3)
            np.testing.assert_allclose(cosines, rows @ query, atol=1e-6)

    def test_what_all_rows_have_in_common_counts_little(self) -> None:
        common, rare, other = np.eye(DIMS)[:3]
        rows = np.stack([unit_vector(common + 0.3 * other)] * 30 + [unit_vector(common + 0.3 * rare)])
        query = unit_vector(common + 0.2 * rare)
        deviations, cosines = matched_filter(rows, covariance_sketch(rows), query)
        assert cosines.max() - cosines.min() < 0.1
        assert deviations[-1] > 2 * deviations[0]

    @pytest.mark.parametrize("count", [1, 5, 300])
    def test_query_of_zeros_scores_0(self, count: int) -> None:
        rows = some_rows(count, DIMS)
        deviations, cosines = matched_filter(rows, covariance_sketch(rows), np.zeros(DIMS, np.float32))
        assert not deviations.any()
        assert not cosines.any()

    @given(st.data(), st.integers(1, 30))
    def test_is_finite_for_any_rows(self, data: st.DataObject, count: int) -> None:
        rows = np.stack([unit_vector(row) for row in data.draw(vectors_of(count))])
        deviations, cosines = matched_filter(rows, covariance_sketch(rows), unit_vector(data.draw(vectors_of(1))[0]))
        assert np.isfinite(deviations).all()
        assert np.isfinite(cosines).all()

    @pytest.mark.parametrize("count", [1, 2, 31, 256, 700])
    @pytest.mark.parametrize("dims", [32, 256])
    def test_memory_address_changes_no_bit(self, count: int, dims: int) -> None:
        rows, query = some_rows(count, dims), some_rows(1, dims, seed=3)[0]
        deviations, cosines = matched_filter(rows, covariance_sketch(rows), query)
        for moved in at_other_addresses(rows):
            again = matched_filter(moved, covariance_sketch(moved), query)
            assert again[0].tobytes() == deviations.tobytes()
            assert again[1].tobytes() == cosines.tobytes()

    @pytest.mark.parametrize("count", [2, 31, 256, 700])
    @pytest.mark.parametrize("dims", [32, 256])
    def test_cosine_bits_are_those_of_each_row_by_itself(self, count: int, dims: int) -> None:
        rows, query = some_rows(count, dims), some_rows(1, dims, seed=3)[0]
        _, cosines = matched_filter(rows, covariance_sketch(rows), query)
        assert cosines.tobytes() == products_row_by_row(rows, query).tobytes()

    @pytest.mark.parametrize("dims", [32, 256])
    def test_with_a_sample_bits_are_those_of_each_row_by_itself(self, dims: int) -> None:
        rows, query = some_rows(700, dims), some_rows(1, dims, seed=3)[0]
        sketch = covariance_sketch(rows)
        assert not sketch.is_complete
        deviations, _ = matched_filter(rows, sketch, query)
        alone = [matched_filter(rows[row : row + 1].copy(), sketch, query)[0][0] for row in range(len(rows))]
        assert np.array(alone).tobytes() == deviations.tobytes()

    def test_equal_rows_have_equal_scores(self) -> None:
        rows = some_rows(400, DIMS)
        rows = np.concatenate((rows, rows[::-1]))
        deviations, _ = matched_filter(rows, covariance_sketch(rows), some_rows(1, DIMS, seed=3)[0])
        assert deviations[:400].tobytes() == deviations[400:][::-1].tobytes()


_BLAS = {"dot", "inner", "matmul", "tensordot", "vdot", "linalg", "optimize"}
"""Names under which numpy calls BLAS; `optimize` lets einsum do so."""


@pytest.mark.parametrize("module", [vectors, bm25, context, scoring], ids=lambda module: module.__name__)
def test_no_module_calls_blas(module: object) -> None:
    """On some machines and shapes a BLAS product has the bits of einsum; a comparison of bits would not notice it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):  # type: ignore[arg-type]
        assert not isinstance(node, ast.MatMult)
        names |= {value for value in (getattr(node, "attr", None), getattr(node, "arg", None)) if value}
    assert not names & _BLAS
