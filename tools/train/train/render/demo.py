"""The clip that `groundd demo` plays: one street, a fixed camera, everything periodic so that it loops without a jump."""

import json
import subprocess
from dataclasses import dataclass, field

import cv2
import numpy as np

from .. import compose
from . import cast, figures, vehicles
from .pen import outline
from .street import street

WIDTH, HEIGHT, RATE, SECONDS = 1280, 720, 15, 20
HORIZON = 0.22
METRE = 0.165  # picture heights per metre at the bottom edge


@dataclass
class Actor:
    kind: str
    foot: float            # where it stands, fraction of the height
    laps: int              # crossings in one loop; the sign is the direction
    start: float           # fraction of a lap at t = 0
    paint: dict = field(default_factory=dict)
    steps: int = 0         # walking cycles or wheel turns in one loop
    seed: int = 0
    size: float = 1.0


def cast_list():
    look = lambda seed, **more: {**figures.appearance(np.random.default_rng(seed)), "hat": None, "bag": None, **more}
    walker = lambda upper, lower, seed, **more: {"upper": upper, "lower": lower, "look": look(seed, **more)}
    return [
        Actor("person", 0.545, 1, 0.10, walker("purple", "black", 3, sleeves="coat"), 18, 1, 1.3),
        Actor("person", 0.552, -1, 0.35, walker("white", "blue", 4, sleeves="short"), 18, 2, 1.3),
        Actor("person", 0.540, 1, 0.62, walker("orange", "grey", 5), 18, 3, 0.95),
        Actor("person", 0.548, 1, 0.66, walker("black", "brown", 8, long_hair=True), 18, 4, 1.3),
        Actor("person", 0.538, -1, 0.85, walker("green", "black", 9), 18, 5, 1.3),
        Actor("car", 0.69, -2, 0.05, {"colour": "red", "kind": "hatch"}, 34, 11),
        Actor("bus", 0.70, -2, 0.42, {"colour": "green"}, 34, 12),
        Actor("van", 0.69, -2, 0.75, {"colour": "white"}, 34, 13),
        Actor("car", 0.84, 2, 0.12, {"colour": "blue", "kind": "sedan"}, 34, 14),
        Actor("car", 0.84, 2, 0.62, {"colour": "yellow", "kind": "estate"}, 34, 15),
        Actor("rider", 0.905, 1, 0.30, {"colour": "black", "upper": "yellow", "lower": "black", "look": look(21)}, 22, 17),
        Actor("person", 0.985, -1, 0.15, walker("red", "blue", 22, sleeves="long", legs="trousers", zip=True), 15, 18),
        Actor("dog", 0.990, -1, 0.235, {"colour": "brown"}, 24, 19),
        Actor("person", 0.978, 1, 0.55, walker("blue", "grey", 23, sleeves="long", legs="trousers"), 15, 20),
        Actor("person", 0.992, 1, 0.93, walker("grey", "black", 24, sleeves="coat", long_hair=True), 15, 21),
    ]


def draw(actor, turn):
    """The actor's sprite at a phase of its walk or wheels; a fixed seed keeps its shades from flickering."""
    rng = np.random.default_rng(actor.seed)
    height = actor.size * METRE * cast.HEIGHT_M[actor.kind] * (actor.foot - HORIZON) / (1 - HORIZON) * HEIGHT
    if actor.kind == "person":
        return figures.person(rng, int(height), turn, shade=0.25, cut=False, **actor.paint)
    if actor.kind == "dog":
        return figures.dog(rng, int(height), turn, shade=0.2, cut=False, **actor.paint)
    return getattr(vehicles, actor.kind)(rng, int(height), turn, shade=0.25, **actor.paint)


def place(actor, t):
    """Centre x at time t in 0..1 of the loop."""
    margin = 330
    way = (actor.start + abs(actor.laps) * t) % 1.0
    x = -margin + way * (WIDTH + 2 * margin)
    return x if actor.laps > 0 else WIDTH - x


def leash(image, person_x, dog_x, actors):
    owner, dog = actors
    reach = METRE * HEIGHT * (owner.foot - HORIZON) / (1 - HORIZON)
    side = 1 if dog_x > person_x else -1
    hand = (int(person_x + side * 0.12 * reach), int(owner.foot * HEIGHT - 0.85 * reach))
    neck = (int(dog_x - side * -0.28 * reach), int(dog.foot * HEIGHT - 0.5 * reach))
    middle = ((hand[0] + neck[0]) // 2, max(hand[1], neck[1]) + 4)
    cv2.polylines(image, [np.array([hand, middle, neck])], False, (40, 40, 60), 2, cv2.LINE_AA)


def frames():
    """(image, labels [(class, box, colours)]) for the whole loop."""
    background = street(np.random.default_rng(31), WIDTH, HEIGHT, 0.44, 0.93).image
    actors = sorted(cast_list(), key=lambda a: a.foot)
    owner, dog = next(a for a in actors if a.paint.get("upper") == "red"), next(a for a in actors if a.kind == "dog")
    for i in range(RATE * SECONDS):
        t = i / (RATE * SECONDS)
        image, labels = background.copy(), []
        for actor in actors:
            x = place(actor, t)
            if actor is owner and -100 < x < WIDTH + 100:
                leash(image, x, place(dog, t), (owner, dog))
            sprite, parts = draw(actor, 2 * np.pi * actor.steps * t)
            if actor.laps < 0:
                sprite = sprite[:, ::-1]
            _, y1, _, y2 = outline(sprite)
            h, w = sprite.shape[:2]
            left, top = int(round(x - w / 2)), int(round(actor.foot * HEIGHT - y2))
            compose.shadow(image, left + w // 6, top, w - w // 3 if actor.kind == "person" else w - w // 6, y2)
            if compose.blend(image, sprite, left, top) is None:
                continue
            x1, y1, x2, y2 = outline(sprite)
            whole = len(parts) == 1
            for name, box, colours in parts:
                full = (left + x1, top + y1, left + x2, top + y2) if whole else None
                if not whole:
                    fx1, fx2 = (1 - box[2], 1 - box[0]) if actor.laps < 0 else (box[0], box[2])
                    full = (left + fx1 * w, top + box[1] * h, left + fx2 * w, top + box[3] * h)
                labels.append((name, [round(float(v), 1) for v in full], colours))
        yield image, visible(labels)


def visible(labels):
    """Without what later figures hide."""
    boxes = np.array([box for _, box, _ in labels], np.float32)
    shown = []
    for i, label in enumerate(labels):
        over = max((compose.covered(boxes[i:i + 1], b)[0] for b in boxes[i + 1:]), default=0)
        if over < 0.6 and boxes[i, 0] > -20 and boxes[i, 2] < WIDTH + 20:
            shown.append(label)
    return shown


def render(path, labels_path=None):
    """Writes the clip; `labels_path` gets what is where, frame by frame, for measurement."""
    command = ["ffmpeg", "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE),
               "-i", "-", "-c:v", "libx264", "-profile:v", "main", "-pix_fmt", "yuv420p", "-preset", "slow", "-crf", "30",
               "-g", str(RATE), "-keyint_min", str(RATE), "-bf", "0", "-threads", "1", "-movflags", "+faststart", str(path)]
    encoder = subprocess.Popen(command, stdin=subprocess.PIPE)
    everything = []
    for image, labels in frames():
        encoder.stdin.write(image.tobytes())
        everything.append(labels)
    encoder.stdin.close()
    if encoder.wait():
        raise SystemExit("ffmpeg could not write the clip")
    if labels_path:
        labels_path.write_text(json.dumps(everything))
