"""Writes the held-out part as a data set for `groundd eval`: pictures and phrases whose answer is known for certain."""

import json

import cv2
import numpy as np

from . import compose, samples
from .data import HELD_OUT_LAST
from .evaluate import letterboxed
from .samples import Frame
from .spec import HEIGHT, WIDTH

EVERY = {"nvidia_Retail02_short": 2, "haar_video1": 2}  # neighbours in a video say little new
DRAWN = 200
PHRASES = 6


def known(query):
    """A phrase is asked only where no object may or may not be meant."""
    return query.none >= 0 and not (query.states == -1).any()


def records(name, frame, rng, all_labelled):
    """Phrases about a frame, with boxes in its own pixels; they are made on the canvas, as in training. What teachers half believe in
    is ignored, but where people labelled all that is asked for."""
    h, w = frame.image.shape[:2]
    scale = min(WIDTH / w, HEIGHT / h)
    shift = np.array([(WIDTH - round(w * scale)) // 2, (HEIGHT - round(h * scale)) // 2] * 2)
    on_picture = lambda boxes: np.clip((boxes - shift) / scale, 0, [w, h, w, h]).round(1)
    letterboxed(frame, rng)
    ignored = on_picture(frame.ignored)
    ignored = [] if all_labelled else ignored[(ignored[:, 2:] > ignored[:, :2]).all(1)].tolist()
    for query in samples.queries(frame, rng, PHRASES):
        if known(query):
            boxes = on_picture(frame.boxes[query.states == 1])
            kind = "absent" if query.none == 1 else query.kind
            record = {"image": name, "phrase": query.text, "boxes": boxes.tolist(), "kind": kind}
            # What is said to be absent is so for certain, whatever else there may be.
            yield record | ({"ignored": ignored} if ignored and query.none == 0 else {})


def held_out_frames(work):
    counts = {}
    for record in json.loads((work / "data/index.json").read_text()):
        if record["split"] != "test":
            continue
        source = record["source"]
        counts[source] = counts.get(source, 0) + 1
        if counts[source] % EVERY.get(source, 1) == 0:
            yield record["file"], Frame.read(work / "data", record)
    pool, rng = compose.make_pool(work / "sprites-held-out.npy", seed=99, count=300), np.random.default_rng(5)
    for i in range(DRAWN):
        yield f"drawn_{i:04d}.jpg", compose.drawn_scene(pool, rng, Frame)


def write(work, folder):
    """`folder`/phrases.json and images; also real.json and drawn.json, and pedestrians.json with `person` alone."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, phrases, people = np.random.default_rng(3), [], []
    for name, frame in held_out_frames(work):
        name = f"images/{name}"
        cv2.imwrite(str(folder / name), frame.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        by_people = any(name.startswith(f"images/{source}") for source in HELD_OUT_LAST)
        if by_people:
            boxes = np.clip(frame.boxes, 0, [*frame.image.shape[1::-1]] * 2).round(1).tolist()
            people.append({"image": name, "phrase": "person", "boxes": boxes, "kind": "class"})
        phrases += records(name, frame, rng, by_people)
    drawn = [p for p in phrases if "drawn_" in p["image"]]
    real = [p for p in phrases if "drawn_" not in p["image"]]
    for name, some in {"phrases": phrases, "real": real, "drawn": drawn, "pedestrians": people}.items():
        (folder / f"{name}.json").write_text(json.dumps({"phrases": some}))
    images = lambda some: len({p["image"] for p in some})
    print(f"{len(real)} phrases on {images(real)} real images, {len(drawn)} on {images(drawn)} drawn ones")
