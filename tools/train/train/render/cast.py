"""Draws a random figure of a class; the weights keep people and vehicles common."""

import numpy as np

from ..vocab import COLOURS
from . import figures, vehicles

CLOTHES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
TROUSERS = ("black", "blue", "grey", "brown", "white", "red", "green")
FUR = ("brown", "black", "white", "grey", "orange")

WEIGHTS = {"person": 0.36, "rider": 0.07, "bicycle": 0.06, "car": 0.2, "van": 0.05, "truck": 0.05, "bus": 0.06,
           "motorcycle": 0.05, "dog": 0.07, "cat": 0.03, "bottle": 0.03, "ball": 0.03, "bag": 0.04}
HEIGHT_M = {"person": 1.72, "rider": 1.75, "bicycle": 1.05, "car": 1.5, "van": 2.1, "truck": 3.0, "bus": 3.0,
            "motorcycle": 1.2, "dog": 0.7, "cat": 0.35, "bottle": 0.3, "ball": 0.3, "bag": 0.5}


def draw(rng, kind=None, height=200):
    """(kind, sprite, parts)."""
    kind = kind or rng.choice(list(WEIGHTS), p=np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values()))
    pick = lambda items: str(items[rng.integers(len(items))])
    colour, turn, shade = pick(COLOURS), rng.uniform(0, 6.28), rng.uniform(0.05, 0.5)
    if kind == "person":
        phase = rng.uniform(0, 6.28) if rng.random() < 0.7 else None
        sprite, parts = figures.person(rng, height, phase, pick(CLOTHES), pick(TROUSERS), shade=shade)
    elif kind == "rider":
        sprite, parts = vehicles.rider(rng, height, turn, colour, pick(CLOTHES), pick(TROUSERS), motor=rng.random() < 0.35, shade=shade)
    elif kind in ("dog", "cat"):
        sprite, parts = getattr(figures, kind)(rng, height, turn, pick(FUR), shade)
    elif kind in ("bottle", "ball", "bag"):
        sprite, parts = getattr(figures, kind)(rng, height, colour, shade)
    elif kind == "bicycle":
        sprite, parts = figures.bicycle(rng, height, turn, colour, shade)
    elif kind == "car" and rng.random() < 0.35:
        sprite, parts = vehicles.car_end(rng, height, colour, shade=shade)
    elif kind == "bus" and rng.random() < 0.4:
        sprite, parts = vehicles.bus_end(rng, height, colour, shade)
    else:
        sprite, parts = getattr(vehicles, kind)(rng, height, turn, colour, shade=shade)
    return kind, sprite, parts
