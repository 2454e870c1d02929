"""Pictures that no camera takes, made of real ones: nothing is known of them but what the teacher answers.

A teacher that is asked about exactly what the pupil sees can be asked about anything. From wild mixtures the pupil learns what the teacher
does, where a few hundred pictures alone would be learned by heart (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient
and consistent", arXiv 2106.05237).
"""

import cv2
import numpy as np

from .spec import HEIGHT, WIDTH

JITTER = 0.12         # of a window's sides that its corners move by, at most
TILT = 0.35           # radians
LEAST_SIDE = 0.25     # of the picture's
MIXED = 0.25          # share of pictures that another one shines through
RECOLOURED = 0.5
POINTED = 0.7         # share of windows that are laid about an object
LAYOUTS = ((1, 1), (1, 1), (1, 1), (2, 1), (2, 2), (3, 2))


def window(image, boxes, rng, size):
    """A part of `image`, mostly about one of its boxes, tilted and skewed a little, in perspective, as (width, height) `size`."""
    h, w = image.shape[:2]
    side = np.exp(rng.uniform(np.log(LEAST_SIDE), 0.1))
    ww, wh = side * w * np.exp(rng.uniform(-0.2, 0.2)), side * h * np.exp(rng.uniform(-0.2, 0.2))
    about = rng.uniform(0, [w, h])
    if len(boxes) and rng.random() < POINTED:
        box = boxes[rng.integers(len(boxes))]
        about = (box[:2] + box[2:]) / 2 + rng.uniform(-0.4, 0.4, 2) * [ww, wh]
    margin = np.minimum([ww, wh], [w, h]) / 2
    centre = np.clip(about, margin, [w, h] - margin)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [ww / 2, wh / 2]
    corners += rng.uniform(-JITTER, JITTER, (4, 2)) * [ww, wh]
    if rng.random() < 0.3:
        angle = rng.uniform(-TILT, TILT)
        corners = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        corners = corners[[1, 0, 3, 2]]
    target = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    if (shrink := max(ww / size[0], wh / size[1])) > 2:  # what is shrunk much is blurred first: warping looks at four pixels only
        image = cv2.blur(image, (int(shrink),) * 2)
    matrix = cv2.getPerspectiveTransform((corners + centre).astype(np.float32), target)
    border = (cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE)[rng.integers(3)]
    return cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)


def recoloured(image, rng):
    """Hues turned, channels exchanged or colour taken away, light bent."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + int(rng.normal(0, 25))) % 180
    hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=rng.uniform(0.2, 1.4))
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.random() < 0.2:
        image = image[..., rng.permutation(3)]
    levels = 255 * (np.arange(256) / 255) ** np.exp(rng.uniform(-0.7, 0.7))
    return cv2.LUT(np.ascontiguousarray(image), levels.astype(np.uint8))


def mixture(draw, rng):
    """A canvas, BGR, of pictures that `draw` gives with their boxes: one to six windows, pieces of others on it, one shining through."""
    canvas = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    columns, rows = LAYOUTS[rng.integers(len(LAYOUTS))]
    w, h = -(-WIDTH // columns), HEIGHT // rows
    for x in range(0, WIDTH, w):
        for y in range(0, HEIGHT, h):
            piece = canvas[y:y + h, x:x + w]
            piece[:] = window(*draw(), rng, piece.shape[1::-1])
    for _ in range(rng.integers(3) if rng.random() < 0.5 else 0):
        pw, ph = (int(side * share) for side, share in zip((WIDTH, HEIGHT), rng.uniform(0.15, 0.5, 2)))
        x, y = rng.integers(WIDTH - pw), rng.integers(HEIGHT - ph)
        canvas[y:y + ph, x:x + pw] = window(*draw(), rng, (pw, ph))
    if rng.random() < MIXED:
        share = rng.uniform(0.1, 0.45)
        canvas = cv2.addWeighted(canvas, 1 - share, window(*draw(), rng, (WIDTH, HEIGHT)), share, 0)
    return recoloured(canvas, rng) if rng.random() < RECOLOURED else canvas
