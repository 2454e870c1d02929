"""Street backgrounds: sky, houses, trees, pavement and road, with the lines on which things stand."""

from dataclasses import dataclass

import cv2
import numpy as np

from .pen import dim


@dataclass
class Street:
    image: np.ndarray
    pavement: tuple  # y of the far pavement's edges, fractions of the height
    road: tuple


def _gradient(height, width, top, bottom):
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.repeat((np.float32(top) * (1 - ramp) + np.float32(bottom) * ramp), width, 1)


def _noise(rng, shape, strength, cell):
    small = rng.normal(0, strength, (max(2, shape[0] // cell), max(2, shape[1] // cell))).astype(np.float32)
    return cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)[..., None]


def _house(image, rng, x, width, top, ground):
    wall = tuple(int(v) for v in rng.choice([(150, 175, 200), (120, 140, 190), (170, 180, 185), (135, 165, 160), (185, 195, 215), (110, 120, 150)]))
    cv2.rectangle(image, (x, top), (x + width, ground), wall, -1)
    cv2.rectangle(image, (x, top), (x + width, top + max(3, (ground - top) // 22)), dim(wall, 0.75), -1)
    floors, columns = max(2, (ground - top) // max(20, image.shape[0] // 9)), max(2, width // max(16, image.shape[1] // 18))
    shop = ground - (ground - top) // (floors + 1)
    for f in range(floors):
        for c in range(columns):
            wx, wy = x + int((c + 0.25) * width / columns), top + int((f + 0.35) * (shop - top) / floors)
            w, h = int(0.5 * width / columns), int(0.5 * (shop - top) / floors)
            lit = tuple(int(v) for v in (rng.choice([(120, 105, 85), (140, 125, 105), (95, 85, 70)])))
            cv2.rectangle(image, (wx - 2, wy - 2), (wx + w + 2, wy + h + 2), dim(wall, 1.15), -1)
            cv2.rectangle(image, (wx, wy), (wx + w, wy + h), lit, -1)
            cv2.line(image, (wx, wy + h), (wx + w // 2, wy), dim(lit, 1.2), 2)
    awning = tuple(int(v) for v in rng.integers(60, 200, 3))
    cv2.rectangle(image, (x + width // 12, shop + 4), (x + width - width // 12, ground), (70, 70, 75), -1)
    cv2.rectangle(image, (x + width // 10, shop + (ground - shop) // 3), (x + width // 2, ground - 4), (120, 115, 105), -1)
    cv2.rectangle(image, (x + width // 14, shop), (x + width - width // 14, shop + (ground - shop) // 4), awning, -1)


def _tree(image, rng, x, ground, size):
    cv2.rectangle(image, (x - size // 16, ground - size // 2), (x + size // 16, ground), (50, 70, 95), -1)
    for _ in range(14):
        dx, dy = rng.normal(0, size / 6, 2)
        green = (int(rng.uniform(40, 75)), int(rng.uniform(105, 150)), int(rng.uniform(60, 95)))
        cv2.circle(image, (int(x + dx), int(ground - size * 0.72 + dy)), int(size * rng.uniform(0.12, 0.2)), green, -1, cv2.LINE_AA)


def street(rng, width, height, horizon=0.46, near=0.95):
    """A street seen from across: houses behind, a pavement, the road, and a pavement in front."""
    ground, kerb, front = int(height * horizon), int(height * (horizon + 0.1)), int(height * near)
    image = np.zeros((height, width, 3), np.float32)
    image[:ground] = _gradient(ground, width, rng.uniform([190, 140, 90], [250, 200, 150]), rng.uniform([215, 205, 190], [250, 240, 235]))
    x = -int(rng.integers(0, width // 8))
    while x < width:
        w = int(rng.uniform(0.14, 0.26) * width)
        if rng.random() < 0.85:
            _house(image, rng, x, w, int(rng.uniform(0.02, 0.22) * height), ground)
        else:
            image[ground - height // 20:ground, max(0, x):x + w] = (70, 120, 80)
        x += w
    stone = rng.uniform(140, 175)
    image[ground:kerb] = _gradient(kerb - ground, width, (stone * 0.92,) * 3, (stone, stone, stone * 1.02))
    asphalt = rng.uniform(70, 110)
    image[kerb:front] = _gradient(front - kerb, width, (asphalt,) * 3, (asphalt * 1.12,) * 3)
    image[front:] = (stone * 1.05, stone * 1.05, stone * 1.08)
    image[kerb:kerb + max(2, height // 120)] = stone * 0.7
    image[front - max(2, height // 90):front] = stone * 0.75
    for x in range(-int(rng.integers(0, 40)), width, max(12, width // 9)):
        y = (kerb + front) // 2
        cv2.rectangle(image, (x, y), (x + width // 18, y + max(2, height // 90)), (215, 220, 220), -1)
    for x in range(0, width, max(8, width // 26)):
        cv2.line(image, (x, ground), (x - width // 60, kerb), (stone * 0.85,) * 3, 1)
    for _ in range(int(rng.integers(1, 5))):
        _tree(image, rng, int(rng.uniform(0, width)), ground + height // 40, int(height * rng.uniform(0.25, 0.4)))
    image += _noise(rng, image.shape, 3.0, 2) + _noise(rng, image.shape, 4.0, 24)
    return Street(np.clip(image, 0, 255).astype(np.uint8), (horizon, horizon + 0.1), (horizon + 0.1, near))
