"""Puts drawn figures into real frames and onto drawn streets."""

import cv2
import numpy as np

from .render import cast
from .render.street import street
from .vocab import CLASS, CLASSES, COLOUR

POOL = 1500


def make_pool(path, seed=7, count=POOL):
    """Drawn figures, kept on disk: drawing one costs more than a whole sample may."""
    if not path.exists():
        rng = np.random.default_rng(seed)
        pool = [cast.draw(rng, height=int(rng.integers(110, 200))) for _ in range(count)]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.array(pool, dtype=object), allow_pickle=True)
    return list(np.load(path, allow_pickle=True))


def blend(image, sprite, x, y):
    """Draws at (x, y), cut at the edges; returns the visible box or None."""
    h, w = sprite.shape[:2]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, image.shape[1]), min(y + h, image.shape[0])
    if x2 - x1 < 3 or y2 - y1 < 3:
        return None
    part = sprite[y1 - y:y2 - y, x1 - x:x2 - x].astype(np.float32)
    target = image[y1:y2, x1:x2]
    image[y1:y2, x1:x2] = np.clip(part[..., :3] + target * (1 - part[..., 3:] / 255), 0, 255).astype(np.uint8)
    return x1, y1, x2, y2


def shadow(image, x, y, w, h):
    """A soft dark ellipse under the feet."""
    ry = max(2, h // 14)
    x1, x2, y1, y2 = max(0, x - 2), min(image.shape[1], x + w + 2), max(0, y + h - ry), min(image.shape[0], y + h + ry)
    if x2 - x1 < 4 or y2 - y1 < 2:
        return
    mask = np.zeros((y2 - y1, x2 - x1), np.float32)
    cv2.ellipse(mask, (x + w // 2 - x1, y + h - y1), (w // 2, ry), 0, 0, 360, 0.45, -1)
    image[y1:y2, x1:x2] = (image[y1:y2, x1:x2] * (1 - mask[..., None])).astype(np.uint8)


def objects(parts, x, y, w, h, mirrored):
    """Class, full box and colour indices of each part of a placed figure."""
    for name, (fx1, fy1, fx2, fy2), colours in parts:
        if mirrored:
            fx1, fx2 = 1 - fx2, 1 - fx1
        box = [x + fx1 * w, y + fy1 * h, x + fx2 * w, y + fy2 * h]
        yield CLASS[name], box, [COLOUR[c] if c else -1 for c in colours]


def kinds(entry):
    """Classes of a figure's parts."""
    return {CLASS[name] for name, *_ in entry[2]}


def put(image, found, entry, rng, height, x, foot):
    """Draws one figure standing at (x, foot), lists its objects, and returns the box that it hides."""
    _, sprite, parts = entry
    scale = height / sprite.shape[0]
    w, h = max(3, int(sprite.shape[1] * scale)), max(4, int(height))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    sprite = cv2.resize(sprite, (w, h), interpolation=method)
    mirrored = rng.random() < 0.5
    if mirrored:
        sprite = sprite[:, ::-1]
    x, y = int(x - w / 2), int(foot - h)
    shadow(image, x, y, w, h)
    visible = blend(image, sprite, x, y)
    if visible is None:
        return
    limit = [image.shape[1], image.shape[0]] * 2
    for kind, box, colours in objects(parts, x, y, w, h, mirrored):
        seen = np.clip(box, 0, limit)
        area = max((box[2] - box[0]) * (box[3] - box[1]), 1e-3)
        if (seen[2] - seen[0]) * (seen[3] - seen[1]) / area > 0.4:
            found.append([kind, seen, colours])
    return np.array(visible, np.float32)


def covered(boxes, by):
    """Share of each box that `by` hides."""
    low, high = np.maximum(boxes[:, :2], by[:2]), np.minimum(boxes[:, 2:], by[2:])
    inter = np.clip(high - low, 0, None).prod(1)
    return inter / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-3)


def append(frame, found):
    n = len(found)
    if not n:
        return
    frame.boxes = np.concatenate([frame.boxes, np.array([f[1] for f in found], np.float32)])
    frame.classes = np.concatenate([frame.classes, np.array([f[0] for f in found], frame.classes.dtype)])
    colours = np.array([f[2] for f in found], np.int16).reshape(n, 3)
    frame.colours = np.concatenate([frame.colours, colours])
    frame.shares = np.concatenate([frame.shares, np.zeros((n, 3, 11), np.float32)])
    frame.drawn = np.concatenate([frame.drawn, np.ones(n, bool)])


def paste(frame, canvas, pool, rng):
    """A few drawn figures on a real frame; they overlap little with what is there."""
    for _ in range(int(rng.integers(1, 6))):
        kind, sprite, _ = entry = pool[rng.integers(len(pool))]
        height = float(np.clip(np.exp(rng.normal(3.9, 0.6)) * (0.6 + 0.25 * cast.HEIGHT_M[kind]), 9, 220))
        width = sprite.shape[1] * height / sprite.shape[0]
        x, foot = rng.uniform(0, canvas.shape[1]), rng.uniform(height * 0.9, canvas.shape[0] + 8)
        box = np.array([x - width / 2, foot - height, x + width / 2, foot], np.float32)
        taken = np.concatenate([frame.boxes, frame.ignored])
        if len(taken) and (covered(taken, box).max() > 0.45):
            continue
        found = []
        put(canvas, found, entry, rng, height, x, foot)
        append(frame, found)
        frame.absent -= kinds(entry)


def drawn_scene(pool, rng, frame_type):
    """A drawn street with figures sized by where they stand; far ones are drawn first."""
    scene = street(rng, 640, 360, rng.uniform(0.3, 0.5), rng.uniform(0.86, 1.0))
    image = scene.image
    if rng.random() < 0.25:
        image[:] = cv2.resize(rng.integers(40, 220, (int(rng.integers(2, 9)), int(rng.integers(2, 12)), 3)).astype(np.uint8), (640, 360))
    horizon = scene.pavement[0] - 0.06
    metre = rng.uniform(0.22, 0.42)  # canvas heights per metre at the bottom of the picture
    feet = np.sort(rng.uniform(scene.pavement[0] + 0.02, 1.04, int(rng.integers(2, 12))))
    favourite = pool[rng.integers(len(pool))][0]
    found, blocks, shown = [], [], set()
    for foot in feet:
        entry = pool[rng.integers(len(pool))]
        for _ in range(4 if rng.random() < 0.4 else 0):  # several of a kind: superlatives need rivals
            if entry[0] == favourite:
                break
            entry = pool[rng.integers(len(pool))]
        depth = (foot - horizon) / (1 - horizon)
        height = max(8.0, metre * depth * cast.HEIGHT_M[entry[0]] * rng.uniform(0.85, 1.15) * 360)
        before = len(found)
        shown |= kinds(entry)
        block = put(image, found, entry, rng, height, rng.uniform(0, 640), foot * 360)
        if block is not None:
            blocks.append((before, block))
    keep = []
    for i, item in enumerate(found):
        later = [b for start, b in blocks if start > i]
        hidden = max([covered(item[1][None], b)[0] for b in later], default=0)
        keep.append(hidden)
    frame = frame_type.bare(image, range(len(CLASSES)))
    frame.absent -= shown
    append(frame, [f for f, hidden in zip(found, keep) if hidden < 0.6])
    lost = [f[1] for f, hidden in zip(found, keep) if 0.6 <= hidden < 0.97]
    frame.ignored = np.array(lost, np.float32).reshape(-1, 4)
    return frame
