"""Which support examples stand before a query: at random, or the most similar pictures (RICES).

Paper: section 3.1 (random shots) and appendix on retrieval-based in-context example selection.
RICES ranks the support set by the cosine of frozen vision features and puts the most similar
example last, right before the query.
"""

from collections.abc import Sequence

import numpy as np

from flamingo_jax.eval.seeding import query_generator

QUERIES_AT_ONCE = 1024  # whose similarities to the whole support set are in memory


def random_shots(
    query_ids: Sequence[str],
    support_ids: Sequence[str],
    num_shots: int,
    *,
    seed: int,
    draw_ids: Sequence[str] | None = None,
) -> np.ndarray:  # i64[queries, num_shots], rows of the support set
    """Draws different support examples for each query, none whose id is the query's own.

    Ids of media, not of records, keep out other records of the query's picture too. What is drawn
    depends on the query's id, or on its `draw_ids`, where several queries are about one picture.
    """
    _check_num_shots(num_shots, len(support_ids))
    chosen = np.empty((len(query_ids), num_shots), np.int64)
    own = _rows_of(support_ids)
    everything = np.arange(len(support_ids))
    for row, (query_id, draw_id) in enumerate(zip(query_ids, draw_ids or query_ids, strict=True)):
        others = np.delete(everything, own.get(query_id, []))
        _check_num_shots(num_shots, len(others))
        chosen[row] = query_generator(seed, draw_id).choice(others, num_shots, replace=False)
    return chosen


def rices_shots(
    query_features: np.ndarray,  # float[queries, E]
    support_features: np.ndarray,  # float[support, E]
    num_shots: int,
    *,
    query_ids: Sequence[str] | None = None,
    support_ids: Sequence[str] | None = None,
) -> np.ndarray:  # i64[queries, num_shots], rows of the support set, the most similar last
    """Picks the support pictures nearest in cosine; of equal ones, the earlier row is nearer.

    With both lists of ids given, an example whose id is the query's own is left out, for a support
    set that holds the queries.
    """
    if query_features.ndim != 2 or support_features.ndim != 2:
        raise ValueError(
            f"features are {list(query_features.shape)} and {list(support_features.shape)}: "
            "pool them to [pictures, width] first"
        )
    _check_num_shots(num_shots, len(support_features))
    own = {} if query_ids is None or support_ids is None else _rows_of(support_ids)
    left_out = [own.get(query_id, []) for query_id in query_ids or () if own]
    _check_num_shots(num_shots, len(support_features) - max(map(len, left_out), default=0))
    queries, support = normalize(query_features), normalize(support_features).T
    chosen = np.empty((len(queries), num_shots), np.int64)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        similarity = queries[part] @ support  # [queries, support]
        for row, own_rows in enumerate(left_out[part]):
            similarity[row, own_rows] = -np.inf
        chosen[part] = np.argsort(-similarity, axis=1, kind="stable")[:, :num_shots]
    return chosen[:, ::-1]


def pool(features: np.ndarray) -> np.ndarray:
    """The mean over frames and places: float[pictures, ..., E] to f32[pictures, E]."""
    return features.reshape(len(features), -1, features.shape[-1]).mean(axis=1, dtype=np.float32)


def normalize(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, f32[pictures, E]; ValueError where a row is zero or not finite."""
    norms = np.linalg.norm(features.astype(np.float32), axis=-1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if bad.size:
        raise ValueError(
            f"features[{bad[0]}] has length {norms[bad[0], 0]}: no direction to compare"
        )
    return features / norms


def _rows_of(ids: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    return rows


def _check_num_shots(num_shots: int, num_support: int) -> None:
    if not 0 <= num_shots <= num_support:
        raise ValueError(f"num_shots={num_shots}: the support set allows 0 to {num_support}")
