"""Measures a model on what it never saw: held-out real frames, and drawn scenes from figures kept apart."""

import json
from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from . import compose, samples
from .language import OFFERED, SelectGraph
from .phrases import Query, of_class
from .samples import Frame, place
from .spec import HEIGHT, SHAPES, WIDTH
from .teacher import iou
from .vocab import CLASS, CLASSES, COLOUR

NMS = 0.6            # of two boxes that overlap more, the better one stays
SOFT = 0.3           # of two that overlap less, the weaker one's score falls: Soft-NMS' variance
DECLARED = 0.9      # share of absent things of which it is to be said that they are absent
DRAWN_SCENES = 150
LARGE_ENOUGH = 24    # pixels at source for the recall figure
LABELLED = {"coco", "night", "towncentre"}
DRAWN = {"rendered", "demo clip"}
CANVAS = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)


@dataclass
class Answer:
    """What the model said to one phrase on one frame, next to the truth."""
    group: str
    kind: str
    none: int
    match: np.ndarray
    objectness: np.ndarray
    boxes: np.ndarray      # canvas pixels
    meant: np.ndarray
    excused: np.ndarray    # boxes that count neither way

    def chosen(self, objectness, match):
        keep = np.flatnonzero((self.objectness >= objectness) & (self.match >= match))
        return keep[suppress(self.boxes[keep], self.match[keep], match)[0]]


def suppress(boxes, scores, bar=0.0):
    """(indices that are left, best first, and their scores) by Soft-NMS, as the daemon does it."""
    overlap, scores, kept = iou(boxes, boxes), scores.astype(np.float64), []
    left = np.ones(len(boxes), bool)
    while left.any():
        i = int(np.where(left, scores, -1).argmax())
        if scores[i] < bar:
            break
        kept.append(i)
        left[i] = False
        left &= overlap[i] <= NMS
        scores = np.where(left, scores * np.exp(-overlap[i] ** 2 / SOFT), scores)
    return np.array(kept, int), scores[kept]


def inside(picture, canvas):
    """Left, top, width and height of a picture (width, height) that lies in the middle of a canvas, as large as it can."""
    (w, h), (across, down) = picture, canvas
    scale = min(across / w, down / h)
    iw, ih = max(1, round(w * scale)), max(1, round(h * scale))
    return (across - iw) // 2, (down - ih) // 2, iw, ih


def letterboxed(frame, rng):
    """Its boxes on the usual canvas, where phrases are made; its picture on the one that shows it largest, as the daemon does."""
    picture, (h, w) = frame.image, frame.image.shape[:2]
    place(frame, rng, (0, 0, w, h), (0, 0, WIDTH, HEIGHT), np.zeros((HEIGHT, WIDTH, 3), np.uint8), (cv2.INTER_LINEAR,))
    canvases = ((WIDTH, HEIGHT), *SHAPES)
    canvas = max(canvases, key=lambda canvas: np.prod(inside((w, h), canvas)[2:]))
    left, top, iw, ih = inside((w, h), canvas)
    frame.image = np.zeros((*canvas[::-1], 3), np.uint8)
    frame.image[top:top + ih, left:left + iw] = cv2.resize(picture, (iw, ih), interpolation=cv2.INTER_LINEAR)
    frame.view = np.array([canvas, (left, top), (iw, ih), inside((w, h), (WIDTH, HEIGHT))[:2], inside((w, h), (WIDTH, HEIGHT))[2:]], np.float32)
    return frame


def on_usual(boxes, view):
    """Boxes in fractions of the model's frame, in pixels of the usual canvas."""
    canvas, corner, size, usual_corner, usual_size = (np.tile(v, 2) for v in view)
    share = canvas / CANVAS
    share /= share.max()
    pixels = ((boxes - 0.5) / share + 0.5) * canvas
    return (pixels - corner) / size * usual_size + usual_corner


def real_frames(work, every=3):
    """Held-out frames as (group, frame, source pixels per canvas pixel); neighbours in a video say little new."""
    records = [r for r in json.loads((work / "data/index.json").read_text()) if r["split"] == "test"]
    counts = defaultdict(int)
    for record in records:
        counts[record["source"]] += 1
        if record["source"] not in LABELLED and counts[record["source"]] % every:
            continue
        frame = Frame.read(work / "data", record)
        h, w = frame.image.shape[:2]
        zoom = 1 / record["scale"] / min(WIDTH / w, HEIGHT / h)
        yield record["source"], letterboxed(frame, np.random.default_rng(0)), zoom


def drawn_frames(work):
    pool = compose.make_pool(work / "sprites-held-out.npy", seed=99, count=300)
    rng = np.random.default_rng(5)
    for _ in range(DRAWN_SCENES):
        yield "rendered", letterboxed(compose.drawn_scene(pool, rng, Frame), rng), 1.25


def demo_frames(work, clip, every=10):
    """The bundled clip, as encoded, with what `train demo` noted about it."""
    if not (work / "demo.json").exists():
        return
    labels, capture = json.loads((work / "demo.json").read_text()), cv2.VideoCapture(str(clip))
    for i, marks in enumerate(labels):
        good, image = capture.read()
        if not good:
            return
        if i % every:
            continue
        frame = Frame.bare(image, range(len(CLASSES)))
        compose.append(frame, [(CLASS[kind], box, [COLOUR[c] if c else -1 for c in colours]) for kind, box, colours in marks])
        yield "demo clip", letterboxed(frame, np.random.default_rng(0)), 2.5


class Runner:
    def __init__(self, model):
        self.model = model.eval()
        self.select = SelectGraph(model.select)

    @torch.no_grad()
    def look(self, image):
        pixels = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).unsqueeze(0)
        return self.model.vision(pixels)[:3]

    @torch.no_grad()
    def ask(self, seen, ids):
        """(match [Q,K], none [Q])."""
        boxes, objectness, regions = seen
        ids = torch.tensor(ids)
        many = lambda x: x.expand(len(ids), *x.shape[1:])
        match, none, _ = self.select(many(regions), many(boxes), many(objectness), self.model.text(ids), ids)
        return match.numpy(), none.numpy()


def asked(frame, rng):
    """The plain class questions first, then one of each other kind where the scene supports it."""
    queries = []
    for name in ("person", "car"):
        states = of_class(samples.scene_of(frame), CLASS[name])
        labelled = CLASS[name] in frame.complete
        none = 0 if (states == 1).any() else (1 if labelled and not len(frame.ignored) else -1)
        queries.append(Query(name, f"plain {name}" if labelled else "skip", states, none))
    return queries + samples.queries(frame, rng, 8)


def answers(model, frames):
    """(answers, recall: group -> [found, all])."""
    runner, rng = Runner(model), np.random.default_rng(3)
    recall, collected = defaultdict(lambda: [0, 0]), []
    for group, frame, zoom in frames:
        seen = runner.look(frame.image)
        boxes, objectness = on_usual(seen[0][0].numpy(), frame.view), seen[1][0].numpy()
        sides = (frame.boxes[:, 2:] - frame.boxes[:, :2]).min(1, initial=1e9) * zoom
        wanted = frame.boxes[sides > LARGE_ENOUGH] if len(frame.boxes) else frame.boxes
        if len(wanted):
            found = iou(wanted, boxes[objectness >= 0.05]).max(1, initial=0) >= 0.5
            recall[group][0] += int(found.sum())
            recall[group][1] += len(wanted)
        queries = asked(frame, rng)
        match, none = runner.ask(seen, [q.ids for q in queries])
        for q, query in enumerate(queries):
            excused = np.concatenate([frame.boxes[query.states == -1], frame.ignored])
            collected.append(Answer(group, query.kind, query.none, match[q], objectness, boxes,
                                    frame.boxes[query.states == 1], excused))
    return collected, recall


def counts(answer, chosen):
    """(hits, false, missed) at IoU 0.5; what falls on excused boxes is left out."""
    boxes, free, hits, false = answer.boxes[chosen], np.ones(len(answer.meant), bool), 0, 0
    overlap = iou(boxes, answer.meant)
    for i in range(len(boxes)):
        row = np.where(free, overlap[i], 0)
        if len(row) and row.max() >= 0.5:
            free[row.argmax()] = False
            hits += 1
        elif not is_excused(boxes[i], answer.excused):
            false += 1
    return hits, false, int(free.sum())


def is_excused(box, excused):
    if not len(excused):
        return False
    low, high = np.maximum(excused[:, :2], box[:2]), np.minimum(excused[:, 2:], box[2:])
    inside = np.clip(high - low, 0, None).prod(1) / max((box[2:] - box[:2]).prod(), 1e-3)
    return bool(inside.max() > 0.5 or iou([box], excused).max() > 0.4)


def f1(some, objectness, match):
    hits = false = missed = 0
    for answer in some:
        if answer.kind != "skip" and answer.none >= 0:
            a, b, c = counts(answer, answer.chosen(objectness, match))
            hits, false, missed = hits + a, false + b, missed + c
    return 2 * hits / max(2 * hits + false + missed, 1)


def average_precision(some):
    """AP50 from precision at 101 recalls."""
    rows, total = [], 0
    for answer in some:
        total += len(answer.meant)
        order, scores = suppress(answer.boxes, answer.match)
        overlap, free = iou(answer.boxes[order], answer.meant), np.ones(len(answer.meant), bool)
        for i, (k, score) in enumerate(zip(order, scores)):
            row = np.where(free, overlap[i], 0)
            if len(row) and row.max() >= 0.5:
                free[row.argmax()] = False
                rows.append((score, 1))
            elif not is_excused(answer.boxes[k], answer.excused):
                rows.append((score, 0))
    if not total or not rows:
        return float("nan")
    right = np.array(sorted(rows, key=lambda r: -r[0]))[:, 1]
    precision, recall = right.cumsum() / np.arange(1, len(right) + 1), right.cumsum() / total
    return float(np.mean([precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]))


def best_scores(some):
    """The lowest bar of `match` at which what is absent is declared absent often enough: as much is found as honesty allows.
    Objectness is part of `match`: it needs no bar of its own."""
    absent = [a for a in some if a.none == 1 and not a.kind.startswith("plain")]  # those are asked of every frame, for AP
    declared = lambda bar: np.mean([not len(a.chosen(OFFERED, bar)) for a in absent])
    bars = [0.01 * step for step in range(15, 51)]
    return {"objectness": OFFERED, "match": next((bar for bar in bars if declared(bar) >= DECLARED), bars[-1]), "nms_iou": NMS, "soft_nms": SOFT}


def report(some, recall, scores):
    """{group: {figure: value}}."""
    result = {}
    by_group = defaultdict(list)
    for answer in some:
        by_group[answer.group].append(answer)
        if answer.group not in DRAWN:
            by_group["real, all"].append(answer)
    for group, mine in by_group.items():
        row = {}
        for name in ("person", "car"):
            row[f"AP50 {name}"] = average_precision([a for a in mine if a.kind == f"plain {name}"])
        found = recall[group] if group in recall else np.sum([v for k, v in recall.items() if k not in DRAWN], 0)
        row["recall@0.5"] = float(found[0] / max(found[1], 1))
        for kind in ("class", "colour", "clothes", "position", "size", "superlative", "relation"):
            these = [a for a in mine if a.kind == kind and len(a.meant)]
            tops = [hit_at_top(a, scores["objectness"]) for a in these]
            if len(tops) >= 5:
                row[f"acc {kind}"] = float(np.mean(tops))
                row[f"F1 {kind}"] = f1(these, scores["objectness"], scores["match"])
        misses = [a for a in mine if a.none == 1]
        if len(misses) >= 5:
            row["miss declared"] = float(np.mean([not len(a.chosen(scores["objectness"], scores["match"])) for a in misses]))
        result[group] = row
    return result


def hit_at_top(answer, objectness):
    score = np.where(answer.objectness >= objectness * 0.5, answer.match, 0)
    return bool(iou([answer.boxes[score.argmax()]], answer.meant).max(initial=0) >= 0.5)


def table(result):
    columns = sorted({key for row in result.values() for key in row}, key=lambda k: (k[:2] != "AP", k[:3] != "rec", k))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for group, row in result.items():
        cells = [f"{row[c]:.2f}" if c in row and row[c] == row[c] else "" for c in columns]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def evaluate(model, work, clip, scores=None):
    """(report, scores); thresholds are chosen here when none are given."""
    everything, recall = [], {}
    for frames in (real_frames(work), drawn_frames(work), demo_frames(work, clip)):
        some, found = answers(model, frames)
        everything += some
        recall.update(found)
    scores = scores or best_scores(everything)
    return report(everything, recall, scores), scores
