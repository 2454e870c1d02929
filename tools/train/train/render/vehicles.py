"""Cars, vans, trucks, buses, motorcycles: side views facing right, and cars and buses from front or rear."""

import numpy as np

from .figures import WHOLE, appearance, bicycle, person
from .pen import Pen, dim, outline, paint

GLASS = (105, 92, 78)
TYRE, RIM = (24, 24, 26), (150, 150, 155)


def _wheel(pen, x, y, radius, turn):
    pen.ellipse((x, y), (radius, radius), TYRE)
    pen.ellipse((x, y), (radius * 0.58, radius * 0.58), RIM)
    for k in range(5):
        angle = turn + k * np.pi * 0.4
        pen.line([(x, y), (x + radius * 0.5 * np.cos(angle), y + radius * 0.5 * np.sin(angle))], radius * 0.16, (90, 90, 95))


def car(rng, height=90, turn=0.0, colour="red", kind=None, shade=0.3):
    kind = kind or ("sedan", "hatch", "suv", "estate")[rng.integers(4)]
    pen = Pen(2.9, height)
    body = paint(rng, colour)
    glass = dim(GLASS, rng.uniform(0.6, 1.3))
    back = {"sedan": [(0.52, 0.44), (0.86, 0.14)], "hatch": [(0.24, 0.42), (0.5, 0.13)],
            "suv": [(0.17, 0.4), (0.28, 0.05)], "estate": [(0.16, 0.42), (0.38, 0.12)]}[kind]
    roof = back[1][1]
    boot = [(0.1, 0.5), (0.14, 0.42), (0.5, 0.41)] if kind == "sedan" else [(0.1, 0.52)]
    pen.polygon([(0.12, 0.84), (0.08, 0.66), *boot, *back, (1.55, roof), (1.78, roof + 0.05), (2.13, 0.42),
                 (2.6, 0.48), (2.76, 0.58), (2.8, 0.78), (2.74, 0.85)], body)
    pen.polygon([(0.1, 0.74), (2.8, 0.74), (2.74, 0.86), (0.14, 0.86)], dim(body, 0.75))
    inset = 0.06
    rear = (back[0][0] + 0.16, 0.42), (back[1][0] + 0.08, roof + inset)
    pen.polygon([rear[0], rear[1], (1.2, roof + inset), (1.2, 0.42)], glass)
    pen.polygon([(1.27, roof + inset), (1.58, roof + inset), (1.72, roof + inset + 0.04), (1.98, 0.42), (1.27, 0.42)], glass)
    pen.polygon([(1.3, roof + 0.08), (1.42, roof + 0.08), (1.34, 0.4), (1.3, 0.4)], dim(glass, 1.5))
    for x in (1.235, 2.0):
        pen.line([(x, 0.44), (x, 0.72)], 0.012, dim(body, 0.65))
    pen.line([(1.02, 0.5), (1.14, 0.5)], 0.022, dim(body, 0.55))
    pen.box(2.62, 0.53, 2.77, 0.62, (190, 235, 250), 0.03)
    pen.box(0.08, 0.52, 0.18, 0.64, (40, 40, 210), 0.02)
    for x in (0.6, 2.27):
        pen.ellipse((x, 0.78), (0.25, 0.25), dim(body, 0.3))
        _wheel(pen, x, 0.79, 0.2, turn)
    return pen.finish(shade, rng), [("car", WHOLE, (colour, None, None))]


def car_end(rng, height=100, colour="red", front=None, shade=0.3):
    """A car from in front or behind."""
    front = rng.random() < 0.5 if front is None else front
    pen = Pen(1.3, height)
    body, glass = paint(rng, colour), dim(GLASS, rng.uniform(0.5, 1.2))
    for x in (0.16, 0.96):
        pen.box(x, 0.7, x + 0.18, 0.98, TYRE, 0.04)
    pen.polygon([(0.1, 0.9), (0.08, 0.5), (0.2, 0.38), (0.32, 0.08), (0.4, 0.04), (0.9, 0.04), (0.98, 0.08), (1.1, 0.38),
                 (1.22, 0.5), (1.2, 0.9)], body)
    pen.polygon([(0.27, 0.38), (0.37, 0.11), (0.93, 0.11), (1.03, 0.38)], glass)
    for x in (0.03, 1.17):
        pen.ellipse((x + 0.05, 0.38), (0.06, 0.04), dim(body, 0.8))
    lamp = (200, 240, 250) if front else (45, 40, 215)
    for x in (0.13, 0.95):
        pen.box(x, 0.5, x + 0.22, 0.6, lamp, 0.04)
    pen.box(0.42, 0.53, 0.88, 0.64, (35, 35, 35) if front else dim(body, 0.8), 0.03)
    pen.box(0.5, 0.7, 0.8, 0.78, (225, 230, 230))
    pen.box(0.1, 0.82, 1.2, 0.9, dim(body, 0.6), 0.03)
    return pen.finish(shade, rng), [("car", WHOLE, (colour, None, None))]


def van(rng, height=120, turn=0.0, colour="white", shade=0.3):
    pen = Pen(2.3, height)
    body, glass = paint(rng, colour), dim(GLASS, rng.uniform(0.6, 1.2))
    pen.polygon([(0.08, 0.86), (0.08, 0.16), (0.16, 0.06), (1.52, 0.06), (1.68, 0.12), (1.96, 0.46), (2.18, 0.54),
                 (2.22, 0.84)], body)
    pen.polygon([(0.08, 0.76), (2.22, 0.76), (2.2, 0.87), (0.1, 0.87)], dim(body, 0.75))
    pen.polygon([(1.3, 0.16), (1.6, 0.16), (1.84, 0.46), (1.3, 0.46)], glass)
    if rng.random() < 0.4:
        pen.box(0.3, 0.16, 1.2, 0.42, glass, 0.03)
    for x in (0.7, 1.24):
        pen.line([(x, 0.14), (x, 0.74)], 0.01, dim(body, 0.7))
    pen.box(2.06, 0.56, 2.2, 0.65, (190, 235, 250), 0.03)
    pen.box(0.08, 0.5, 0.13, 0.66, (40, 40, 210))
    for x in (0.48, 1.8):
        pen.ellipse((x, 0.82), (0.19, 0.19), dim(body, 0.3))
        _wheel(pen, x, 0.83, 0.15, turn)
    return pen.finish(shade, rng), [("van", WHOLE, (colour, None, None))]


def truck(rng, height=150, turn=0.0, colour="blue", shade=0.3):
    pen = Pen(2.7, height)
    body, glass = paint(rng, colour), dim(GLASS, rng.uniform(0.6, 1.2))
    cargo = body if rng.random() < 0.6 else paint(rng, ("white", "grey")[rng.integers(2)])
    pen.box(0.06, 0.78, 2.5, 0.85, (45, 45, 48))
    if rng.random() < 0.75:
        pen.box(0.06, 0.05, 1.84, 0.78, cargo, 0.02)
        for x in np.arange(0.2, 1.8, rng.uniform(0.12, 0.4)):
            pen.line([(x, 0.07), (x, 0.76)], 0.006, dim(cargo, 0.85))
    else:  # open bed
        pen.box(0.06, 0.5, 1.84, 0.78, cargo)
    pen.polygon([(1.9, 0.84), (1.9, 0.24), (2.3, 0.22), (2.46, 0.5), (2.56, 0.56), (2.58, 0.84)], body)
    pen.polygon([(2.02, 0.3), (2.26, 0.29), (2.38, 0.52), (2.02, 0.52)], glass)
    pen.box(2.48, 0.62, 2.58, 0.7, (190, 235, 250), 0.02)
    for x in (0.4, 0.7, 2.2) if rng.random() < 0.6 else (0.5, 2.2):
        _wheel(pen, x, 0.85, 0.135, turn)
    return pen.finish(shade, rng), [("truck", WHOLE, (colour if cargo == body else None, None, None))]


def bus(rng, height=150, turn=0.0, colour="red", shade=0.3):
    pen = Pen(rng.uniform(2.6, 3.3), height)
    end = pen.size[0] / pen.scale - 0.08
    body, glass = paint(rng, colour), dim(GLASS, rng.uniform(0.5, 1.1))
    pen.box(0.06, 0.06, end, 0.88, body, 0.07)
    pen.box(0.07, 0.72, end - 0.01, 0.88, dim(body, 0.8), 0.03)
    count = int(rng.integers(5, 8))
    width = (end - 0.5) / count
    for i in range(count):
        pen.box(0.14 + i * width, 0.18, 0.14 + (i + 0.86) * width, 0.5, glass, 0.02)
        pen.line([(0.2 + i * width, 0.22), (0.17 + i * width, 0.46)], 0.012, dim(glass, 1.45))
    pen.box(end - 0.32, 0.18, end - 0.02, 0.56, glass, 0.03)
    pen.box(end - 0.62, 0.2, end - 0.4, 0.84, dim(glass, 0.85), 0.02)
    pen.box(end - 0.3, 0.08, end - 0.04, 0.15, (30, 160, 240))
    pen.box(end - 0.07, 0.66, end, 0.74, (190, 235, 250))
    for x in (0.5, end - 0.85):
        pen.ellipse((x, 0.85), (0.15, 0.15), dim(body, 0.3))
        _wheel(pen, x, 0.86, 0.12, turn)
    return pen.finish(shade, rng), [("bus", WHOLE, (colour, None, None))]


def bus_end(rng, height=150, colour="green", shade=0.3):
    pen = Pen(0.95, height)
    body, glass = paint(rng, colour), dim(GLASS, rng.uniform(0.4, 1.1))
    for x in (0.14, 0.68):
        pen.box(x, 0.84, x + 0.14, 0.99, TYRE, 0.02)
    pen.box(0.07, 0.03, 0.88, 0.92, body, 0.07)
    pen.box(0.12, 0.2, 0.83, 0.56, glass, 0.04)
    pen.box(0.18, 0.08, 0.77, 0.16, (20, 24, 28))
    pen.box(0.24, 0.095, 0.7, 0.145, (30, 150, 240))
    for x in (0.12, 0.7):
        pen.box(x, 0.68, x + 0.13, 0.75, (200, 240, 250), 0.02)
    pen.box(0.1, 0.83, 0.85, 0.91, dim(body, 0.55))
    return pen.finish(shade, rng), [("bus", WHOLE, (colour, None, None))]


def motorcycle(rng, height=110, turn=0.0, colour="red", shade=0.25):
    pen = Pen(1.8, height)
    body = paint(rng, colour)
    for x in (0.36, 1.42):
        _wheel(pen, x, 0.7, 0.27, turn)
    pen.line([(1.42, 0.7), (1.16, 0.24), (1.0, 0.18)], 0.05, (60, 60, 62))
    pen.polygon([(0.5, 0.66), (0.62, 0.46), (1.1, 0.4), (1.14, 0.7), (0.8, 0.8)], (55, 55, 58))
    pen.ellipse((0.96, 0.38), (0.24, 0.12), body)
    pen.polygon([(0.2, 0.36), (0.74, 0.34), (0.74, 0.46), (0.4, 0.48)], (28, 28, 30))
    pen.polygon([(0.12, 0.36), (0.42, 0.42), (0.46, 0.56), (0.2, 0.46)], body)
    pen.line([(0.4, 0.76), (0.9, 0.78)], 0.06, (150, 150, 155))
    pen.ellipse((1.2, 0.3), (0.08, 0.08), (200, 240, 250))
    return pen.finish(shade, rng), [("motorcycle", WHOLE, (colour, None, None))]


def _over(under, over, x, y):
    h, w = over.shape[:2]
    target = under[y:y + h, x:x + w].astype(np.float32)
    alpha = over[..., 3:].astype(np.float32) / 255
    under[y:y + h, x:x + w] = np.clip(over + target * (1 - alpha), 0, 255).astype(np.uint8)


def rider(rng, height=180, turn=0.0, colour="red", upper="blue", lower="black", look=None, motor=False, shade=0.25):
    """Somebody on a bicycle or motorcycle: two objects in one sprite."""
    machine, parts = (motorcycle if motor else bicycle)(rng, int(height * 0.62), turn, colour, shade)
    look = dict(look or appearance(rng), bag=None, legs="trousers")
    body, _ = person(rng, int(height * 0.86), 0.9 * np.sin(turn), upper, lower, look, shade, cut=False)
    h = height
    w = max(machine.shape[1], body.shape[1])
    sprite = np.zeros((h, w, 4), np.uint8)
    my, mx = h - machine.shape[0], (w - machine.shape[1]) // 2
    px = min(max(0, mx + int(machine.shape[1] * 0.46) - body.shape[1] // 2), w - body.shape[1])
    _over(sprite, machine, mx, my)
    _over(sprite, body, px, 0)
    x1, y1, x2, y2 = outline(body)
    seat = ((px + x1) / w, y1 / h, (px + x2) / w, y2 / h)
    frame = (mx / w, my / h, (mx + machine.shape[1]) / w, 1.0)
    return sprite, [("person", seat, (None, upper, lower)), (parts[0][0], frame, parts[0][2])]
