"""Writes labelled pictures of one camera in their order, for what a search finds within a budget (`tests/zoom.rs`).

Nobody labelled the films: the labels are what the teachers are sure of (`teacher`), on every so-manieth picture.
"""

import json

import cv2

from . import vocab
from .teacher import Teacher

# Film, what is asked for, and which pictures: about five a second, as a daemon looks at a busy camera.
CLIPS = {
    "street": ("theaiguys_test.mp4", "person", 6),
    "highway": ("udacity_solidWhiteRight.mp4", "car", 5),
    "square": ("ahmetozlu_cutl.mp4", "person", 6),
}


def pictures(film, every):
    capture = cv2.VideoCapture(str(film))
    if not capture.isOpened():
        raise SystemExit(f"{film} is missing, or no film; `clips` needs it")
    at = 0
    while True:
        shown, picture = capture.read()
        if not shown:
            return
        if at % every == 0:
            yield picture
        at += 1


def write(data, folder):
    """`folder`/NAME.json and its pictures, in the layout of `groundd eval`."""
    teacher = Teacher(data / "detectors")
    for name, (film, phrase, every) in CLIPS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        phrases = []
        for at, picture in enumerate(pictures(data / "videos" / film, every)):
            image = f"{name}/{at:04d}.jpg"
            cv2.imwrite(str(folder / image), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
            labels, _ = teacher(picture)
            boxes = [box for *box, kind in labels if kind == vocab.CLASS[phrase]]
            phrases.append({"image": image, "phrase": phrase, "boxes": boxes, "kind": "class"})
        (folder / f"{name}.json").write_text(json.dumps({"phrases": phrases}))
        print(f"{name}: {len(phrases)} pictures, {sum(len(p['boxes']) for p in phrases)} times `{phrase}`")
