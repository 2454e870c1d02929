"""Dense targets on the stride-8 grid: where objects are, which object a cell answers for, what is left out."""

import numpy as np

from .spec import GRID_H, GRID_W, STRIDE

RESPONSIBLE = 0.5  # heat from which a cell also learns the box


def dense(boxes, ignored):
    """heat [H,W], weight [H,W], owner [H,W] (index of the object or -1). Boxes in canvas pixels."""
    heat = np.zeros((GRID_H, GRID_W), np.float32)
    owner = np.full((GRID_H, GRID_W), -1, np.int16)
    weight = np.ones((GRID_H, GRID_W), np.float32)
    for x1, y1, x2, y2 in ignored / STRIDE:
        weight[int(max(y1, 0)):int(np.ceil(y2)), int(max(x1, 0)):int(np.ceil(x2))] = 0
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ys, xs = np.arange(GRID_H) + 0.5, np.arange(GRID_W) + 0.5
    for i in np.argsort(-areas):  # small objects last: they win the cells they share
        x1, y1, x2, y2 = boxes[i] / STRIDE
        cx = min(int((x1 + x2) / 2), GRID_W - 1)
        cy = min(int((y1 + y2) / 2), GRID_H - 1)
        sx, sy = max(0.11 * (x2 - x1), 0.45), max(0.11 * (y2 - y1), 0.45)
        gauss = np.exp(-((xs - cx - 0.5) ** 2) / (2 * sx * sx))[None] * np.exp(-((ys - cy - 0.5) ** 2) / (2 * sy * sy))[:, None]
        owner[(gauss > RESPONSIBLE) & (gauss >= heat * 0.8)] = i
        heat = np.maximum(heat, gauss).astype(np.float32)
        weight[gauss > RESPONSIBLE] = 1
        heat[cy, cx], owner[cy, cx] = 1.0, i
    return heat, weight, owner
