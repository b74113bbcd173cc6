"""Which nodes of the graph are seeds: those that show marked voxels.

A stroke along the border of a structure lies in the tails of the Gaussians on its other side, too.
These receive much of it in sum, as the stroke is long, and still show hardly any of its voxels:
they are no seeds. A class that is thinner than the Gaussians shares all of them with what lies
beside it. Where no node is clearly its own, the nodes that show its markers best are its seeds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.advanced import GraphParams

# Of the nodes that show most of an unclear class's markers, those with at least this part of the
# largest fraction of the class.
CLEAREST = 0.5


def choose_seeds(
    voxels: NDArray[np.int32],
    classes: NDArray[np.int32],
    mass: Floats,
    share: Floats,
    leader: NDArray[np.int32],
    params: GraphParams,
) -> NDArray[np.int32]:
    """Return each node's class by the marked voxels that it shows, -1 where it is no seed.

    Parameters
    ----------
    voxels : (P, 3) ndarray of int
        Marked voxels.
    classes : (P,) ndarray of int
    mass : (N, K) ndarray of float32
        What each node shows of every class's markers, in voxels.
    share : (N,) ndarray of float32
        Mean part of a marked voxel that a node shows.
    leader : (P,) ndarray of int
        The node that shows most of every marked voxel; -1 for none.
    params : GraphParams

    Returns
    -------
    (N,) ndarray of int32
    """
    total = mass.sum(axis=1)
    seeds = mass.argmax(axis=1).astype(np.int32)
    clear = (total > params.seed_mass) & (mass.max(axis=1) > params.seed_purity * total)
    seeds[~(clear & (share > params.seed_share))] = -1
    if not len(voxels):
        return seeds
    # Slice by slice, as strokes are drawn: along the axis on which they lie in the fewest planes.
    axis = int(np.argmin([len(np.unique(voxels[:, a])) for a in range(3)]))
    groups = voxels[:, axis].astype(np.int64) * mass.shape[1] + classes
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    for on in np.split(order, starts[1:]):
        nodes = np.unique(leader[on])
        nodes = nodes[nodes >= 0]
        k = int(classes[on[0]])
        if len(nodes) and not (seeds[nodes] == k).any():
            fraction = mass[nodes, k] / total[nodes]
            seeds[nodes[fraction >= CLEAREST * fraction.max()]] = k
    return seeds
