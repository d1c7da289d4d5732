"""The part of a directed graph in which everywhere is reachable from everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


def largest_component(nodes: int, edges: ArrayLike) -> NDArray[np.int64]:
    """The nodes of the largest strongly connected component. An edge is (start, end)."""
    starts, ends = np.asarray(edges).T
    matrix = csr_array((np.ones(len(starts)), (starts, ends)), shape=(nodes, nodes))
    _, component = connected_components(matrix, directed=True, connection="strong")
    return np.flatnonzero(component == np.bincount(component).argmax())
