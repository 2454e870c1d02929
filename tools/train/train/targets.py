"""Dense targets from labels: which cells answer for an object, and which must not be judged."""

import numpy as np

from .spec import CELLS, GRIDS, STRIDES

REACH = 48  # an object whose side (root of its area) is below REACH/8 cells of a map belongs to that map; the last takes the rest


def cell_centres():
    """[N,2] canvas pixels, in the order of the exported maps."""
    parts = []
    for stride, (rows, columns) in zip(STRIDES, GRIDS):
        ys, xs = np.mgrid[:rows, :columns]
        parts.append((np.stack([xs, ys], -1).reshape(-1, 2) + 0.5) * stride)
    return np.concatenate(parts).astype(np.float32)


CENTRES = cell_centres()
STRIDE = np.concatenate([np.full(h * w, s) for s, (h, w) in zip(STRIDES, GRIDS)]).astype(np.float32)


def level(box):
    side = np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 1))
    for stride in STRIDES[:-1]:
        if side < REACH * stride / 8:
            return stride
    return STRIDES[-1]


def assign(boxes):
    """strength [N] (1 at an object's centre, falling off) and owner [N] (index or -1). Boxes [n,4] in canvas pixels."""
    strength, owner = np.zeros(CELLS, np.float32), np.full(CELLS, -1, np.int64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) if len(boxes) else []
    for i in np.argsort(-np.asarray(areas)):  # small objects last: they win the cells they share
        x1, y1, x2, y2 = boxes[i]
        stride = level(boxes[i])
        away = (CENTRES - [(x1 + x2) / 2, (y1 + y2) / 2]) / np.maximum([(x2 - x1) * 0.22, (y2 - y1) * 0.22], 0.6 * stride)
        value = np.where(STRIDE == stride, np.exp(-0.5 * (away**2).sum(1)), 0).astype(np.float32)
        if not (value > 0.45).any():
            on = np.flatnonzero(STRIDE == stride)
            value[on[np.argmin((away[on] ** 2).sum(1))]] = 1.0
        mine = value > 0.45
        strength[mine], owner[mine] = value[mine], i
    return strength, owner


def unjudged(ignored):
    """Cells inside a box of which it is not known what it shows, [N] bool."""
    inside = np.zeros(CELLS, bool)
    for x1, y1, x2, y2 in ignored:
        inside |= (CENTRES[:, 0] > x1) & (CENTRES[:, 0] < x2) & (CENTRES[:, 1] > y1) & (CENTRES[:, 1] < y2)
    return inside
