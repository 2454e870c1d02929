"""Names the colour of a patch, only when it is clear-cut."""

import cv2
import numpy as np

from .vocab import COLOUR, COLOURS


def shares(bgr):
    """Share of pixels by colour name, [11]; pixels between two names count for neither."""
    hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV).reshape(-1, 3).astype(np.int32)
    h, s, v = hsv[:, 0] * 2, hsv[:, 1], hsv[:, 2]
    chroma = s * v // 255
    vivid = (s > 70) & (v > 45) & (chroma > 38)
    red = (h >= 345) | (h < 14)
    masks = {
        "black": (v < 52) & (chroma < 24),
        "white": (v > 185) & (s < 36),
        "grey": (v >= 75) & (v <= 170) & (s < 34),
        "pink": vivid & ((h >= 305) | (h < 8)) & (v > 150) & (s < 150),
        "red": vivid & red & ((s >= 150) | (v <= 150)) & (v > 70),
        "brown": vivid & (h >= 10) & (h < 45) & (v < 135),
        "orange": vivid & (h >= 15) & (h < 40) & (v > 175) & (s > 140),
        "yellow": vivid & (h >= 44) & (h < 68) & (v > 140),
        "green": vivid & (h >= 78) & (h < 170),
        "blue": vivid & (h >= 190) & (h < 255),
        "purple": vivid & (h >= 262) & (h < 305),
    }
    total = max(len(h), 1)
    return np.array([masks[name].sum() / total for name in COLOURS], np.float32)


def patch(image, box, rows, columns):
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    crop = image[int(y1 + rows[0] * h):int(y1 + rows[1] * h) + 1, int(x1 + columns[0] * w):int(x1 + columns[1] * w) + 1]
    return crop if crop.size else None


def decide(share, need):
    """Index of the one clear colour, or -1. Dark and grey parts (windows, tyres, shade) are on everything."""
    coloured = share.copy()
    coloured[[COLOUR["black"], COLOUR["grey"], COLOUR["white"], COLOUR["brown"]]] = 0
    order = np.argsort(-coloured)
    if coloured[order[0]] > need and coloured[order[0]] > 2.5 * coloured[order[1]]:
        return int(order[0])
    if coloured.sum() > 0.12:
        return -1
    for name, least in (("white", 0.42), ("black", 0.62), ("brown", 0.5), ("grey", 0.6)):
        if share[COLOUR[name]] > least:
            return COLOUR[name]
    return -1


def measure(image, box, person):
    """(colour of whole, upper, lower) as indices or -1, and the shares of each part, [3][11]."""
    if person:
        parts = [None, patch(image, box, (0.2, 0.45), (0.28, 0.72)), patch(image, box, (0.55, 0.82), (0.3, 0.7))]
    else:
        parts = [patch(image, box, (0.2, 0.85), (0.12, 0.88)), None, None]
    small = (box[2] - box[0]) < 10 or (box[3] - box[1]) < 14
    names, all_shares = [], []
    for part in parts:
        share = np.zeros(len(COLOURS), np.float32) if part is None else shares(part)
        names.append(-1 if part is None or small else decide(share, 0.42 if person else 0.26))
        all_shares.append([round(float(x), 3) for x in share])
    return names, all_shares
