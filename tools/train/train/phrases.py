"""Writes phrases about a labelled scene and says, object by object, whether each is meant.

State of an object for a phrase: 1 meant, 0 not meant, -1 unknowable (then it is left out of the loss).
`none` is 1 when surely nothing is meant, 0 when something is, -1 when unknown.
"""

from dataclasses import dataclass, field

import numpy as np

from .spec import HEIGHT, WIDTH
from .vocab import CLASS, CLASSES, COLOURS, GROUPS, OTHER, tokenise

PERSON = CLASS["person"]
TWO_WHEELS = (CLASS["bicycle"], CLASS["motorcycle"], CLASS["horse"])
NAMED = [i for i in range(len(CLASSES)) if i != OTHER]
CONFUSED = {frozenset(map(CLASS.get, pair)) for pair in (("van", "car"), ("van", "truck"), ("van", "bus"), ("truck", "bus"))}
VISIBLE = 8.0  # canvas pixels, root of the area: what is smaller is never asked for, nor missed
SIDES = ("left", "right", "left", "right", "top", "bottom", "middle")
SIZES = (("large", 0.2, 0.33), ("big", 0.2, 0.33), ("small", 0.11, 0.2), ("little", 0.11, 0.2), ("tiny", 0.11, 0.2))
SUPERLATIVES = ("largest", "smallest", "leftmost", "rightmost", "topmost", "bottommost", "nearest", "farthest")
VAGUE = 0.08  # share of a colour from which an object of no clear colour may pass for it
ARTICLES = ("", "", "the ", "a ", "all ", "any ", "every ", "find the ", "show all the ", "please find ")
NEAR = ("next to", "near", "with", "in front of", "behind", "on")  # one of several things may be the one that is meant


@dataclass
class Scene:
    boxes: np.ndarray      # [N,4] canvas pixels
    classes: np.ndarray    # [N]
    colours: np.ndarray    # [N,3] whole, upper, lower; -1 unknown
    shares: np.ndarray     # [N,3,11]
    complete: set          # classes labelled exhaustively
    doubt: bool            # some ignored boxes: absence of a labelled class is not sure
    drawn: np.ndarray      # [N] bool
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))  # what may be a thing of any kind
    absent: set = field(default_factory=set)  # classes of which there surely is none, not even an ignored one


@dataclass
class Query:
    text: str
    kind: str
    states: np.ndarray
    none: int

    @property
    def ids(self):
        return tokenise(self.text)


def of_class(scene, kind):
    members = [CLASS[c] for c in GROUPS.get(CLASSES[kind], (CLASSES[kind],))]  # "animal" is a class and the word for several
    states = np.isin(scene.classes, members).astype(np.int8)
    for i, other in enumerate(scene.classes):
        if frozenset((int(other), kind)) in CONFUSED and not scene.drawn[i]:
            states[i] = -1
    return states


def sides(boxes):
    """Root of the area, canvas pixels."""
    return np.sqrt(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1))


def narrow(states, condition):
    """Keeps the meant objects for which `condition` holds; unknown stays unknown unless it surely fails."""
    result = states.copy()
    result[(states != 0) & (condition == 0)] = 0
    result[(states == 1) & (condition == -1)] = -1
    return result


def coloured(scene, colour, part):
    """Whether each object's whole (0), upper (1) or lower (2) part has the colour."""
    known = scene.colours[:, part]
    result = (known == colour).astype(np.int8)
    result[(known != colour) & (scene.shares[:, part, colour] > VAGUE) & ~scene.drawn] = -1
    result[(known == -1) & scene.drawn] = -1
    return result


def ladder(value, low, high):
    return np.where(value >= high, 1, np.where(value <= low, 0, -1)).astype(np.int8)


def related(words, boxes, anchor):
    """Whether each box stands so to the anchor: 1, 0, or -1 where it is not clear."""
    x1, y1, x2, y2 = boxes.T
    ax1, ay1, ax2, ay2 = anchor
    if words == "on":
        inside = np.clip(np.minimum(x2, ax2) - np.maximum(x1, ax1), 0, None) / np.maximum(x2 - x1, 1)
        seat = (y2 > ay1 + 0.25 * (ay2 - ay1)) & (y1 < ay1) & (y2 < ay2 + 0.12 * (ay2 - ay1))
        return ladder(np.where(seat, inside, 0.0), 0.35, 0.65)
    gap_x = np.maximum(np.maximum(x1 - ax2, ax1 - x2), 0)
    gap_y = np.maximum(np.maximum(y1 - ay2, ay1 - y2), 0)
    reach = 0.5 * ((x2 - x1) + (ax2 - ax1)) / 2 + 6
    near = ladder(-(np.hypot(gap_x, gap_y * 1.5) / reach), -2.0, -0.8)
    dx = ((x1 + x2) - (ax1 + ax2)) / 2
    dy = ((y1 + y2) - (ay1 + ay2)) / 2
    if words == "in front of":
        return np.minimum(near, ladder(y2 - ay2, 0, 5))
    if words == "behind":
        return np.minimum(near, ladder(ay2 - y2, 0, 5))
    if words in ("above", "below"):
        return ladder(-dy if words == "above" else dy, 2, 9)
    if "left" in words or "right" in words:
        return ladder(-dx if "left" in words else dx, 2, 10)
    return near


class Writer:
    def __init__(self, scene, rng):
        self.scene, self.rng = scene, rng
        self.present = sorted({int(c) for c in scene.classes if c != OTHER})

    def pick(self, items):
        return items[self.rng.integers(len(items))]

    def article(self):
        return self.pick(ARTICLES)

    def done(self, text, kind, states):
        states = np.where((states == 1) & (sides(self.scene.boxes) < VISIBLE), -1, states).astype(np.int8)
        if (states == 1).any():
            none = 0
        elif (states == -1).any():
            none = -1
        else:
            none = 1
        return Query(text, kind, states, none)

    def absent(self):
        """Classes of which there surely is none."""
        scene = self.scene
        options = {k for k in NAMED if k in scene.absent or (k in scene.complete and not scene.doubt)} - set(self.present)
        animals = {CLASS[c] for c in GROUPS["animal"]}
        options = options if animals <= options else options - {CLASS["animal"]}
        return [k for k in sorted(options) if not of_class(scene, k).any()]  # a car may be a van

    def absent_class(self):
        """Something that is not there, asked for in any of the ways in which what is there is asked for."""
        options = self.absent()
        if not options:
            return None
        kind = self.pick(options)
        name, roll = CLASSES[kind], self.rng.random()
        if kind == PERSON and roll < 0.3:
            text = self.colour_words(kind, int(self.rng.integers(len(COLOURS))), self.pick((1, 1, 2)))
        elif roll < 0.2:
            text = self.article() + f"{self.pick(COLOURS)} {name}"
        elif roll < 0.3:
            text = self.article() + f"{name} {self.place_words(self.pick(SIDES))}"
        elif roll < 0.36:
            text = self.article() + f"{self.pick(SIZES)[0]} {name}"
        elif roll < 0.44:
            text = self.pick(("", "the ", "find the ")) + f"{self.pick(SUPERLATIVES)} {name}"
        elif roll < 0.56 and self.present:
            text = self.article() + f"{name} {self.pick(NEAR[:4])} {self.pick(('the', 'a'))} {CLASSES[self.pick(self.present)]}"
        else:
            text = self.article() + name
        return self.done(text, "absent", of_class(self.scene, kind))

    def plain(self):
        if self.rng.random() < 0.12:
            group = self.pick(list(GROUPS))
            members = [CLASS[c] for c in GROUPS[group]]
            states = np.isin(self.scene.classes, members).astype(np.int8)
            if not (states == 1).any() and not set(members) <= set(self.absent()):
                return None
            query = self.done(self.article() + group, "class", states)
            query.kind = "absent" if query.none == 1 else query.kind
            return query
        kind = self.pick(self.present)
        return self.done(self.article() + CLASSES[kind], "class", of_class(self.scene, kind))

    def colour(self):
        """Mostly a colour that is there; else a near miss: the right class in another colour."""
        scene = self.scene
        kind = self.pick(self.present)
        part = (1 if self.rng.random() < 0.7 else 2) if kind == PERSON else 0
        there = [int(c) for c in scene.colours[scene.classes == kind, part] if c >= 0]
        elsewhere = [int(c) for c in scene.colours[:, part] if c >= 0 and int(c) not in there]
        roll = self.rng.random()
        if there and roll < 0.7:
            colour = self.pick(there)
        elif elsewhere and roll < 0.85:
            colour = self.pick(elsewhere)
        else:
            colour = int(self.rng.integers(len(COLOURS)))
        states = narrow(of_class(scene, kind), coloured(scene, colour, part))
        query = self.done(self.colour_words(kind, colour, part), "colour" if part == 0 else "clothes", states)
        if query.none == 1:
            if scene.doubt or kind not in scene.complete:
                query.none = -1
            query.kind = "absent"
        return query

    def colour_words(self, kind, colour, part):
        name, colour = CLASSES[kind], COLOURS[colour]
        if part == 0:
            return self.article() + f"{colour} {name}"
        if part == 1:
            tail = self.pick(("in {}", "in a {} jacket", "wearing a {} shirt", "in a {} coat", "with a {} jacket",
                              "in {} clothes", "wearing {}", "dressed in {}"))
        else:
            tail = self.pick(("in {} trousers", "wearing {} pants", "with {} jeans"))
        return self.article() + f"{name} " + tail.format(colour)

    def position(self):
        scene = self.scene
        kind = self.pick(self.present)
        cx = (scene.boxes[:, 0] + scene.boxes[:, 2]) / 2 / WIDTH
        cy = (scene.boxes[:, 1] + scene.boxes[:, 3]) / 2 / HEIGHT
        side = self.pick(SIDES)
        value = {"left": 0.5 - cx, "right": cx - 0.5, "top": 0.5 - cy, "bottom": cy - 0.5,
                 "middle": 0.2 - np.maximum(abs(cx - 0.5), abs(cy - 0.5) * 0.8)}[side]
        margin = 0.04 if side == "middle" else 0.06
        condition = np.where(value > margin, 1, np.where(value < -margin, 0, -1)).astype(np.int8)
        query = self.done(self.article() + f"{CLASSES[kind]} {self.place_words(side)}", "position", narrow(of_class(scene, kind), condition))
        if query.none == 1 and (scene.doubt or kind not in scene.complete):
            query.none = -1
        return query

    def place_words(self, side):
        place = "in" if side == "middle" else self.pick(("on", "at", "in"))
        return self.pick((f"{place} the {side}", f"{place} the {side} side", f"{place} the {side} of the picture"))

    def size(self):
        """Large or small in the picture; what lies between is neither for certain."""
        scene = self.scene
        kind = self.pick(self.present)
        side = np.sqrt((scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(1)) / HEIGHT
        word, low, high = self.pick(SIZES)
        condition = np.where(side >= high, 1, np.where(side <= low, 0, -1)).astype(np.int8)
        if high == 0.2:
            condition = np.where(condition == -1, -1, 1 - condition).astype(np.int8)
        query = self.done(self.article() + f"{word} {CLASSES[kind]}", "size", narrow(of_class(scene, kind), condition))
        if query.none == 1 and (scene.doubt or kind not in scene.complete):
            query.none = -1
        return query

    def superlative(self):
        """Needs a clear winner among at least two of a kind: as clear as boxes of a few pixels' error can show it, and over
        whatever else may be of the kind."""
        scene = self.scene
        counts = [k for k in self.present if (scene.classes == k).sum() >= 2 and k in scene.complete]
        if not counts:
            return None
        kind = self.pick(counts)
        members = np.flatnonzero(scene.classes == kind)
        x1, y1, x2, y2 = np.concatenate([scene.boxes[members], scene.ignored]).T
        area = np.sqrt((x2 - x1) * (y2 - y1))
        word, value, margin = self.pick((
            ("largest", area, 0.2), ("smallest", -area, 0.2), ("leftmost", -(x1 + x2) / 2, 14),
            ("rightmost", (x1 + x2) / 2, 14), ("topmost", -(y1 + y2) / 2, 10), ("bottommost", (y1 + y2) / 2, 10),
            ("nearest", y2, 10), ("farthest", -y2, 10), ("largest", area, 0.2),
        ))
        order = np.argsort(-value)
        first, second = value[order[0]], value[order[1]]
        gap = abs(first - second) / max(abs(second), 1e-3) if word in ("largest", "smallest") else first - second
        if gap < margin or order[0] >= len(members) or area[order[0]] < VISIBLE:
            return None
        states = np.zeros(len(scene.classes), np.int8)
        states[members[order[0]]] = 1
        return self.done(self.pick(("", "the ", "find the ")) + f"{word} {CLASSES[kind]}", "superlative", states)

    def relation(self):
        """A thing by another one. What is not there has nothing beside it: also where the first thing stands by something else."""
        scene = self.scene
        roll = self.rng.random()
        if roll < 0.3:
            return self.beside_nothing()
        several = roll < 0.5
        anchors = [k for k in self.present if ((scene.classes == k).sum() > 1) == several]
        if not anchors or len(scene.classes) < 2 or (several and scene.doubt):
            return None
        anchor_kind = self.pick(anchors)
        subjects = [k for k in self.present if k != anchor_kind]
        if not subjects:
            return None
        kind = self.pick([k for k in subjects if (scene.classes == k).sum() >= 2] or subjects)
        members = np.flatnonzero(scene.classes == anchor_kind)
        words, condition = self.compare(scene.boxes, scene.boxes[members], kind, anchor_kind)
        if several and words not in NEAR:
            return None
        name = CLASSES[anchor_kind]
        if not several and scene.colours[members[0], 0] >= 0 and self.rng.random() < 0.3:
            name = f"{COLOURS[scene.colours[members[0], 0]]} {name}"
        text = self.article() + f"{CLASSES[kind]} {words} {'a' if several else self.pick(('the', 'a'))} {name}"
        query = self.done(text, "relation", narrow(of_class(scene, kind), condition))
        if query.none == 1:
            query.none, query.kind = (-1 if scene.doubt else 1), "absent"
        return query

    def beside_nothing(self):
        """Something that is there beside something that is not, or not in this colour."""
        scene, kind = self.scene, self.pick(self.present)
        others = [k for k in self.present if k != kind and k in scene.complete and k != PERSON]
        name = None
        if others and not scene.doubt and self.rng.random() < 0.35:
            anchor = self.pick(others)
            members = scene.classes == anchor
            wrong = [c for c in range(len(COLOURS)) if (scene.colours[members, 0] >= 0).all() and not (scene.colours[members, 0] == c).any()
                     and (scene.shares[members, 0, c] <= VAGUE).all()]
            if wrong:
                name = f"{COLOURS[self.pick(wrong)]} {CLASSES[anchor]}"
        if name is None:
            options = self.absent()
            if not options:
                return None
            name = CLASSES[self.pick(options)]
        words = self.pick((*NEAR[:5], "left of", "to the right of"))
        text = self.article() + f"{CLASSES[kind]} {words} {self.pick(('the', 'a', 'a'))} {name}"
        return self.done(text, "absent", np.zeros(len(scene.classes), np.int8))

    def compare(self, boxes, anchors, kind, anchor_kind):
        """The words of a relation, and which boxes stand in it to any of the anchors: 1, 0 or, where it is not clear, -1."""
        riding = kind == PERSON and anchor_kind in TWO_WHEELS and self.rng.random() < 0.6
        words = "on" if riding else self.pick(("next to", "near", "next to", "with", "to the left of", "left of", "to the right of",
                                               "right of", "above", "below", "in front of", "behind"))
        each = np.stack([related(words, boxes, anchor) for anchor in anchors])
        condition = np.where((each == 1).any(0), 1, np.where((each == -1).any(0), -1, 0)).astype(np.int8)
        return words, condition

    def write(self, count):
        """`count` queries; kinds that the scene cannot support are replaced by others."""
        if not self.present:
            queries = [self.absent_class() for _ in range(count)]
            return [q for q in queries if q is not None]
        makers = (self.plain, self.colour, self.position, self.size, self.superlative, self.relation, self.absent_class)
        weights = np.array([0.2, 0.25, 0.1, 0.06, 0.13, 0.13, 0.13])
        queries, seen = [self.plain()], set()
        queries = [q for q in queries if q is not None]
        for _ in range(count * 4):
            if len(queries) >= count:
                break
            query = makers[self.rng.choice(len(makers), p=weights)]()
            if query is None or query.text in seen:
                continue
            if query.none == -1 and not (query.states == 1).any() and self.rng.random() < 0.7:
                continue  # teaches little
            seen.add(query.text)
            queries.append(query)
        return queries
