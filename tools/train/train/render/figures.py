"""People, animals and small things. Every function returns (sprite, parts).

A part is (class, box in fractions of the sprite, colours (whole, upper, lower) as names or None).
"""

import numpy as np

from .pen import Pen, dim, paint

WHOLE = (0.0, 0.0, 1.0, 1.0)
SKIN = [(150, 180, 225), (120, 160, 210), (90, 130, 185), (60, 90, 140), (45, 65, 100)]
HAIR = [(20, 25, 30), (35, 50, 80), (60, 110, 170), (110, 170, 215), (120, 120, 125), (30, 40, 120)]


def _limb(pen, start, angles, lengths, widths, colours, end=None):
    """A two-part limb; returns where it ends."""
    point = np.array(start)
    for angle, length, width, colour in zip(angles, lengths, widths, colours):
        after = point + length * np.array([np.sin(angle), np.cos(angle)])
        pen.line([point, after], width, colour)
        point = after
    if end is not None:
        pen.ellipse(point, (widths[-1] * 0.55, widths[-1] * 0.55), end)
    return point


def person(rng, height=200, phase=None, upper=None, lower=None, look=None, shade=0.3, cut=True):
    """Walking (phase in radians) or standing; facing right. `look` fixes skin, hair and build."""
    look = look or appearance(rng)
    pen = Pen(0.75, height)
    swing = 0.0 if phase is None else np.sin(phase)
    stride, build = 0.5 * swing, look["build"]
    top, trousers = paint(rng, upper) if isinstance(upper, str) else upper, lower
    trousers = paint(rng, lower) if isinstance(lower, str) else lower
    skin, hair, shoe = look["skin"], look["hair"], look["shoe"]
    centre, bob = 0.375, 0.012 * abs(np.cos(phase)) if phase is not None else 0.0
    hip, shoulder = (centre, 0.53 + bob), (centre, 0.215 + bob)
    sleeve = skin if look["sleeves"] == "short" else dim(top, 0.85)
    shin = skin if look["legs"] != "trousers" else dim(trousers, 0.95)

    def leg(angle, colour, below):
        bend = max(0.0, -angle) * 0.9 + 0.06
        foot = _limb(pen, (hip[0], hip[1]), (angle, angle - bend), (0.22, 0.2), (0.085 * build, 0.066 * build), (colour, below))
        pen.ellipse((foot[0] + 0.025, foot[1] + 0.012), (0.052, 0.024), shoe)

    _limb(pen, (shoulder[0], shoulder[1] + 0.03), (-stride * 1.1, -stride * 1.1 + 0.35), (0.15, 0.14),
          (0.058 * build, 0.045 * build), (dim(top, 0.7), dim(sleeve, 0.8)), skin)
    if look["bag"]:
        pen.box(centre - 0.15, 0.23 + bob, centre - 0.03, 0.45 + bob, look["bag"], 0.03)
    leg(-stride, dim(trousers, 0.75), dim(shin, 0.8))
    leg(stride, trousers, shin)
    half = 0.088 * build
    long = {"short": 0.0, "long": 0.0, "coat": 0.14}[look["sleeves"]]
    pen.polygon([(centre - half, shoulder[1]), (centre + half, shoulder[1]), (centre + half * 1.12, 0.4 + bob),
                 (centre + half * 1.1, hip[1] + 0.03 + long), (centre - half * 1.1, hip[1] + 0.03 + long),
                 (centre - half * 1.12, 0.4 + bob)], top)
    pen.ellipse((centre, shoulder[1] + 0.012), (half, 0.03), top)
    if look["legs"] == "skirt":
        pen.polygon([(centre - half, hip[1]), (centre + half, hip[1]), (centre + 0.15, 0.72), (centre - 0.15, 0.72)], trousers)
    if look["zip"]:
        pen.line([(centre + half * 0.5, shoulder[1]), (centre + half * 0.5, hip[1])], 0.008, dim(top, 0.6))
    _limb(pen, (shoulder[0], shoulder[1] + 0.03), (stride * 1.1, stride * 1.1 + 0.35), (0.15, 0.14),
          (0.06 * build, 0.046 * build), (dim(top, 0.88), sleeve), skin)
    pen.line([(centre, 0.14 + bob), (centre, 0.22 + bob)], 0.05, dim(skin, 0.85))
    if look["long_hair"]:
        pen.ellipse((centre - 0.02, 0.13 + bob), (0.07, 0.11), hair)
    pen.ellipse((centre + 0.005, 0.1 + bob), (0.062, 0.078), skin)
    pen.ellipse((centre - 0.012, 0.065 + bob), (0.066, 0.05), hair)
    if look["hat"]:
        pen.box(centre - 0.07, 0.025 + bob, centre + 0.07, 0.07 + bob, look["hat"], 0.03)
    return pen.finish(shade, rng, cut), [("person", WHOLE, (None, upper, lower))]


def appearance(rng):
    pick = lambda items: items[rng.integers(len(items))]
    return {
        "skin": pick(SKIN), "hair": pick(HAIR), "build": rng.uniform(0.85, 1.3), "shoe": pick([(20, 20, 20), (60, 60, 70), (210, 210, 210), (40, 60, 110)]),
        "sleeves": pick(["long", "long", "short", "coat"]), "legs": pick(["trousers"] * 4 + ["shorts", "skirt"]),
        "long_hair": rng.random() < 0.4, "hat": tuple(map(int, rng.integers(20, 230, 3))) if rng.random() < 0.15 else None,
        "bag": tuple(map(int, rng.integers(20, 200, 3))) if rng.random() < 0.15 else None, "zip": rng.random() < 0.4,
    }


def bicycle(rng, height=120, turn=0.0, colour="red", shade=0.2):
    pen = Pen(1.75, height)
    frame, tyre = paint(rng, colour), (25, 25, 28)
    back, front, radius = (0.42, 0.62), (1.3, 0.62), 0.34
    for wheel in (back, front):
        pen.ellipse(wheel, (radius, radius), tyre, fill=False, width=0.045)
        for k in range(6):
            angle = turn + k * np.pi / 3
            tip = (wheel[0] + radius * np.cos(angle), wheel[1] + radius * np.sin(angle))
            pen.line([wheel, tip], 0.01, (150, 150, 150))
    crank, seat, head = (0.8, 0.64), (0.68, 0.2), (1.18, 0.2)
    for a, b in ((back, crank), (crank, head), (seat, crank), ((0.7, 0.26), head), (back, (0.7, 0.26)), (head, front)):
        pen.line([a, b], 0.045, frame)
    pen.line([(0.56, 0.17), (0.78, 0.17)], 0.06, (30, 30, 30))
    pen.line([head, (1.2, 0.08), (1.06, 0.06)], 0.035, (40, 40, 40))
    return pen.finish(shade, rng), [("bicycle", WHOLE, (colour, None, None))]


def dog(rng, height=110, phase=0.0, colour="brown", shade=0.25, cut=True):
    pen = Pen(1.6, height)
    fur = paint(rng, colour)
    dark, swing = dim(fur, 0.72), 0.4 * np.sin(phase)
    for x, angle, tone in ((0.5, -swing, dark), (1.05, swing, dark), (0.44, swing, fur), (1.0, -swing, fur)):
        _limb(pen, (x, 0.58), (angle, angle - 0.15), (0.2, 0.18), (0.1, 0.075), (tone, tone))
    pen.line([(0.36, 0.42), (0.2, 0.25), (0.14, 0.12 + 0.03 * np.sin(2 * phase))], 0.07, fur)
    pen.ellipse((0.74, 0.5), (0.42, 0.17), fur)
    pen.ellipse((0.98, 0.48), (0.2, 0.2), fur)
    pen.line([(1.05, 0.42), (1.2, 0.24)], 0.2, fur)
    pen.ellipse((1.25, 0.2), (0.15, 0.125), fur)
    pen.ellipse((1.4, 0.25), (0.1, 0.07), dim(fur, 0.9))
    pen.ellipse((1.48, 0.23), (0.03, 0.026), (15, 15, 15))
    pen.ellipse((1.15, 0.22), (0.055, 0.13), dark, angle=15)
    pen.ellipse((1.29, 0.16), (0.018, 0.02), (15, 15, 15))
    return pen.finish(shade, rng, cut), [("dog", WHOLE, (colour, None, None))]


def cat(rng, height=100, phase=0.0, colour="grey", shade=0.25):
    pen = Pen(1.7, height)
    fur = paint(rng, colour)
    dark, swing = dim(fur, 0.75), 0.35 * np.sin(phase)
    for x, angle, tone in ((0.58, -swing, dark), (1.02, swing, dark), (0.53, swing, fur), (0.98, -swing, fur)):
        _limb(pen, (x, 0.66), (angle, angle), (0.15, 0.14), (0.08, 0.06), (tone, tone))
    pen.line([(0.44, 0.55), (0.24, 0.42), (0.2, 0.18), (0.28, 0.08)], 0.06, fur)
    pen.ellipse((0.78, 0.6), (0.36, 0.14), fur)
    pen.ellipse((1.18, 0.45), (0.15, 0.14), fur)
    for x in (1.08, 1.22):
        pen.polygon([(x - 0.03, 0.36), (x + 0.03, 0.21), (x + 0.08, 0.36)], fur)
    pen.ellipse((1.24, 0.43), (0.018, 0.024), (60, 200, 160))
    return pen.finish(shade, rng), [("cat", WHOLE, (colour, None, None))]


def bottle(rng, height=120, colour="blue", shade=0.2):
    pen = Pen(0.5, height)
    glass = paint(rng, colour)
    pen.box(0.1, 0.36, 0.4, 0.98, glass, 0.05)
    pen.polygon([(0.1, 0.42), (0.19, 0.2), (0.31, 0.2), (0.4, 0.42)], glass)
    pen.box(0.19, 0.06, 0.31, 0.24, glass)
    pen.box(0.18, 0.02, 0.32, 0.11, tuple(map(int, rng.integers(20, 240, 3))), 0.02)
    pen.box(0.1, 0.52, 0.4, 0.72, dim(glass, 1.25) if rng.random() < 0.5 else (230, 230, 230))
    pen.line([(0.15, 0.45), (0.15, 0.92)], 0.02, dim(glass, 1.5))
    return pen.finish(shade, rng), [("bottle", WHOLE, (colour, None, None))]


def ball(rng, height=70, colour="red", shade=0.35):
    pen = Pen(1.0, height)
    skin = paint(rng, colour)
    pen.ellipse((0.5, 0.5), (0.47, 0.47), skin)
    if rng.random() < 0.5:
        pen.ellipse((0.5, 0.5), (0.2, 0.47), dim(skin, 0.7), fill=False, width=0.03)
        pen.line([(0.04, 0.5), (0.96, 0.5)], 0.03, dim(skin, 0.7))
    pen.ellipse((0.36, 0.32), (0.09, 0.07), dim(skin, 1.35))
    return pen.finish(shade, rng), [("ball", WHOLE, (colour, None, None))]


def bag(rng, height=100, colour="brown", shade=0.3):
    pen = Pen(1.0, height)
    cloth = paint(rng, colour)
    tall = rng.random() < 0.5
    if tall:  # suitcase or backpack
        pen.line([(0.4, 0.2), (0.4, 0.06), (0.6, 0.06), (0.6, 0.2)], 0.03, (40, 40, 40))
        pen.box(0.22, 0.16, 0.78, 0.95, cloth, 0.09)
        pen.box(0.3, 0.55, 0.7, 0.85, dim(cloth, 0.78), 0.05)
    else:
        pen.ellipse((0.5, 0.4), (0.24, 0.32), dim(cloth, 0.7), fill=False, width=0.05)
        pen.polygon([(0.14, 0.42), (0.86, 0.42), (0.94, 0.94), (0.06, 0.94)], cloth)
        pen.line([(0.14, 0.5), (0.86, 0.5)], 0.03, dim(cloth, 0.7))
    return pen.finish(shade, rng), [("bag", WHOLE, (colour, None, None))]
