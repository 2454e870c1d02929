"""Writes phrases about a labelled scene and says, object by object, whether each is meant.

State of an object for a phrase: 1 meant, 0 not meant, -1 unknowable (then it is left out of the loss).
`none` is 1 when surely nothing is meant, 0 when something is, -1 when unknown.
"""

from dataclasses import dataclass, field

import numpy as np

from .spec import HEIGHT, WIDTH
from .vocab import CLASS, CLASSES, COLOURS, GROUPS, OTHER, tokenise

PERSON = CLASS["person"]
NAMED = [i for i in range(len(CLASSES)) if i != OTHER]
CONFUSED = {frozenset(map(CLASS.get, pair)) for pair in (("van", "car"), ("van", "truck"), ("van", "bus"), ("truck", "bus"))}
VISIBLE = 8.0  # canvas pixels, root of the area: what is smaller is never asked for, nor missed
VAGUE = 0.08  # share of a colour from which an object of no clear colour may pass for it
ARTICLES = ("", "", "the ", "a ", "all ", "any ", "every ", "find the ", "show all the ", "please find ")
CANNOT_SHOW = [CLASS[c] for c in ("boat", "horse", "bird", "cat", "cup", "umbrella", "ball", "animal")]


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
    states = (scene.classes == kind).astype(np.int8)
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

    def absent_class(self):
        scene = self.scene
        options = [k for k in NAMED if k not in self.present]
        if scene.doubt or len(scene.complete) < len(CLASSES):
            options = [k for k in options if k in CANNOT_SHOW or (k in scene.complete and not scene.doubt)]
        if not options:
            return None
        kind = self.pick(options)
        states = of_class(scene, kind)
        colour = self.pick(COLOURS) + " " if self.rng.random() < 0.25 else ""
        return self.done(self.article() + colour + CLASSES[kind], "absent", states)

    def plain(self):
        if self.rng.random() < 0.12:
            group = self.pick(list(GROUPS))
            members = [CLASS[c] for c in GROUPS[group]]
            states = np.isin(self.scene.classes, members).astype(np.int8)
            if not (states == 1).any() and (self.scene.doubt or not set(members) <= self.scene.complete):
                return None
            return self.done(self.article() + group, "class", states)
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
        side = self.pick(("left", "right", "left", "right", "top", "bottom", "middle"))
        value = {"left": 0.5 - cx, "right": cx - 0.5, "top": 0.5 - cy, "bottom": cy - 0.5,
                 "middle": 0.2 - np.maximum(abs(cx - 0.5), abs(cy - 0.5) * 0.8)}[side]
        margin = 0.04 if side == "middle" else 0.06
        condition = np.where(value > margin, 1, np.where(value < -margin, 0, -1)).astype(np.int8)
        place = "in" if side == "middle" else self.pick(("on", "at", "in"))
        tail = self.pick((f"{place} the {side}", f"{place} the {side} side", f"{place} the {side} of the picture"))
        query = self.done(self.article() + f"{CLASSES[kind]} {tail}", "position", narrow(of_class(scene, kind), condition))
        if query.none == 1 and (scene.doubt or kind not in scene.complete):
            query.none = -1
        return query

    def size(self):
        """Large or small in the picture; what lies between is neither for certain."""
        scene = self.scene
        kind = self.pick(self.present)
        side = np.sqrt((scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(1)) / HEIGHT
        word, low, high = self.pick((("large", 0.2, 0.33), ("big", 0.2, 0.33), ("small", 0.11, 0.2), ("little", 0.11, 0.2), ("tiny", 0.11, 0.2)))
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
        scene = self.scene
        anchors = [k for k in self.present if (scene.classes == k).sum() == 1]
        if not anchors or len(scene.classes) < 2:
            return None
        anchor_kind = self.pick(anchors)
        subjects = [k for k in self.present if k != anchor_kind]
        if not subjects:
            return None
        several = [k for k in subjects if (scene.classes == k).sum() >= 2]
        kind = self.pick(several or subjects)
        anchor = int(np.flatnonzero(scene.classes == anchor_kind)[0])
        words, condition = self.compare(scene.boxes, scene.boxes[anchor], kind, anchor_kind)
        condition[anchor] = 0
        name = CLASSES[anchor_kind]
        if scene.colours[anchor, 0] >= 0 and self.rng.random() < 0.3:
            name = f"{COLOURS[scene.colours[anchor, 0]]} {name}"
        text = self.article() + f"{CLASSES[kind]} {words} {self.pick(('the', 'a'))} {name}"
        query = self.done(text, "relation", narrow(of_class(scene, kind), condition))
        if query.none == 1 and scene.doubt:
            query.none = -1
        return query

    def compare(self, boxes, anchor, kind, anchor_kind):
        x1, y1, x2, y2 = boxes.T
        ax1, ay1, ax2, ay2 = anchor
        gap_x = np.maximum(np.maximum(x1 - ax2, ax1 - x2), 0)
        gap_y = np.maximum(np.maximum(y1 - ay2, ay1 - y2), 0)
        reach = 0.5 * ((x2 - x1) + (ax2 - ax1)) / 2 + 6
        ladder = lambda value, low, high: np.where(value >= high, 1, np.where(value <= low, 0, -1)).astype(np.int8)
        near = ladder(-(np.hypot(gap_x, gap_y * 1.5) / reach), -2.0, -0.8)
        dx = ((x1 + x2) - (ax1 + ax2)) / 2
        dy = ((y1 + y2) - (ay1 + ay2)) / 2
        two_wheels = (CLASS["bicycle"], CLASS["motorcycle"], CLASS["horse"])
        if kind == PERSON and anchor_kind in two_wheels and self.rng.random() < 0.6:
            inside = np.clip(np.minimum(x2, ax2) - np.maximum(x1, ax1), 0, None) / np.maximum(x2 - x1, 1)
            seat = (y2 > ay1 + 0.25 * (ay2 - ay1)) & (y1 < ay1) & (y2 < ay2 + 0.12 * (ay2 - ay1))
            return "on", ladder(np.where(seat, inside, 0.0), 0.35, 0.65)
        return self.pick((
            ("next to", near), ("near", near), ("next to", near), ("with", near),
            ("to the left of", ladder(-dx, 2, 10)), ("left of", ladder(-dx, 2, 10)),
            ("to the right of", ladder(dx, 2, 10)), ("right of", ladder(dx, 2, 10)),
            ("above", ladder(-dy, 2, 9)), ("below", ladder(dy, 2, 9)),
            ("in front of", np.minimum(near, ladder(y2 - ay2, 0, 5))),
            ("behind", np.minimum(near, ladder(ay2 - y2, 0, 5))),
        ))

    def write(self, count):
        """`count` queries; kinds that the scene cannot support are replaced by others."""
        if not self.present:
            queries = [self.absent_class() for _ in range(count)]
            return [q for q in queries if q is not None]
        makers = (self.plain, self.colour, self.position, self.size, self.superlative, self.relation, self.absent_class)
        weights = np.array([0.2, 0.26, 0.1, 0.06, 0.14, 0.12, 0.12])
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
