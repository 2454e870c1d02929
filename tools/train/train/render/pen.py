"""A canvas in unit coordinates (height 1) that draws with a mask and shrinks with anti-aliasing."""

import cv2
import numpy as np

SUPER = 3  # drawn this much larger than asked, then averaged


class Pen:
    def __init__(self, aspect, height):
        self.scale = height * SUPER
        self.size = (int(aspect * height) * SUPER, height * SUPER)
        self.image = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        self.mask = np.zeros((self.size[1], self.size[0]), np.uint8)

    def _at(self, points):
        return np.round(np.asarray(points, np.float32) * self.scale).astype(np.int32)

    def _both(self, draw, colour):
        draw(self.image, tuple(int(c) for c in colour))
        draw(self.mask, 255)

    def polygon(self, points, colour):
        points = self._at(points)
        self._both(lambda target, value: cv2.fillPoly(target, [points], value), colour)

    def line(self, points, width, colour):
        points, width = self._at(points), max(1, int(width * self.scale))
        self._both(lambda target, value: cv2.polylines(target, [points], False, value, width), colour)
        for point in points:  # round joints
            self._both(lambda target, value: cv2.circle(target, tuple(map(int, point)), width // 2, value, -1), colour)

    def ellipse(self, centre, radii, colour, angle=0.0, fill=True, width=0.01):
        centre, radii = tuple(map(int, self._at(centre))), tuple(map(int, self._at(radii)))
        thick = -1 if fill else max(1, int(width * self.scale))
        self._both(lambda t, v: cv2.ellipse(t, centre, radii, angle, 0, 360, v, thick), colour)

    def box(self, x1, y1, x2, y2, colour, corner=0.0):
        if corner <= 0:
            return self.polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour)
        r = min(corner, (x2 - x1) / 2, (y2 - y1) / 2)
        turn = np.linspace(0, np.pi / 2, 6)
        arc = lambda cx, cy, start: [(cx + r * np.cos(start + t), cy + r * np.sin(start + t)) for t in turn]
        self.polygon(arc(x2 - r, y2 - r, 0) + arc(x1 + r, y2 - r, np.pi / 2) + arc(x1 + r, y1 + r, np.pi)
                     + arc(x2 - r, y1 + r, 1.5 * np.pi), colour)

    def finish(self, shade=0.0, rng=None, cut=True):
        """Premultiplied BGR and alpha, cut to what was drawn unless frames of a walk must line up.

        `shade`: darker towards the ground, with blotches."""
        image, mask = self.image.astype(np.float32), self.mask.astype(np.float32) / 255
        if shade:
            ramp = np.linspace(1 + shade / 2, 1 - shade, image.shape[0], dtype=np.float32)[:, None, None]
            image = image * ramp
            if rng is not None:
                image = image + cv2.resize(rng.normal(0, 25 * shade, (24, 24)).astype(np.float32), self.size)[..., None]
        small = (self.size[0] // SUPER, self.size[1] // SUPER)
        colour = cv2.resize(np.clip(image, 0, 255) * mask[..., None], small, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
        sprite = np.dstack([colour, alpha * 255]).astype(np.uint8)
        if not cut:
            return sprite
        x1, y1, x2, y2 = outline(sprite)
        return sprite[y1:y2, x1:x2]


def outline(sprite):
    """xyxy of what is opaque."""
    ys, xs = np.nonzero(sprite[..., 3] > 76)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


RANGES = {  # hue in degrees, saturation and value in 0..255; inside what `colour.shares` calls by that name
    "red": ((350, 368), (185, 250), (120, 235)), "orange": ((20, 34), (190, 255), (215, 255)),
    "yellow": ((48, 60), (160, 255), (200, 255)), "green": ((90, 155), (110, 255), (70, 210)),
    "blue": ((200, 245), (130, 255), (80, 240)), "purple": ((268, 295), (100, 230), (90, 200)),
    "pink": ((318, 350), (75, 145), (210, 255)), "brown": ((18, 34), (110, 200), (60, 120)),
    "black": ((0, 360), (0, 40), (12, 40)), "white": ((0, 360), (0, 18), (225, 255)),
    "grey": ((0, 360), (0, 18), (90, 155)),
}


def paint(rng, name):
    """A BGR shade that everyone would call `name`."""
    (h0, h1), (s0, s1), (v0, v1) = RANGES[name]
    hsv = np.uint8([[[int(rng.uniform(h0, h1)) % 360 // 2, rng.uniform(s0, s1), rng.uniform(v0, v1)]]])
    return tuple(int(c) for c in cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0])


def dim(colour, factor):
    return tuple(min(255, int(c * factor)) for c in colour)
