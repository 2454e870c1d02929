"""Builds the labelled frames that everything else draws from: one JPEG each and one index.json.

A record: {file, source, split, boxes [[x1,y1,x2,y2]], classes, ignored [[x1,y1,x2,y2]],
colours [[whole, upper, lower]], shares [[3][11]], complete}. `complete` says which classes are labelled exhaustively.
"""

import hashlib
import json

import cv2
import numpy as np

from . import colour, vocab
from .teacher import Teacher, iou

LONG_SIDE = 800
HELD_OUT_VIDEOS = {"nvidia_Retail02_short", "haar_video1"}  # one with pedestrians, one with cars
HELD_OUT_LAST = {"towncentre": 30}  # frames at the end of a camera's day
GAP = 10             # frames before those that are in neither part: who walks through them is still there later
HELD_OUT_SHARE = 10  # per cent of every labelled set, by hash of the file name
FRAMES = 110         # per video at most

PERSON, CAR = vocab.CLASS["person"], vocab.CLASS["car"]
_TRAFFIC = {"person", "bicycle", "car", "motorcycle", "bus", "truck"}
_SQUARE = {"person", "bicycle", "dog"}  # bins and benches there pass for bags and motorcycles
ALLOWED = {  # what a camera can plausibly show; anything else that a teacher reports there is doubtful
    "bottle-detection": {"bottle"},
    "haar_video1": _TRAFFIC, "bgslibrary_video03": _TRAFFIC, "udacity_solidWhiteRight": _TRAFFIC,
    "imageai_traffic-mini": _TRAFFIC, "ahmetozlu_input_video": _TRAFFIC, "mmtracking_demo": _SQUARE | {"car"},
    "ahmetozlu_cutl": _SQUARE, "theaiguys_test": _SQUARE, "helmet_1": {"person"},
    "one-by-one-person-detection": {"person", "bag"}, "sam2_01_dog": {"person", "dog"},
    "nvidia_Retail02_short": {"person", "chair", "bag", "bottle"},
}
_ROAD = {"car", "motorcycle", "bus", "truck", "van"}
_NEVER = {"cat", "ball", "boat", "horse", "animal"}
_ON_ROADS = _NEVER | {"dog", "bottle", "bag", "chair", "cup", "umbrella", "bench"}
ABSENT = {  # what people who looked through a camera's pictures found that none of them shows
    "towncentre": _NEVER | _ROAD, "ahmetozlu_cutl": _NEVER | _ROAD, "theaiguys_test": _NEVER | _ROAD,
    "bgslibrary_video03": _ON_ROADS | {"person", "bicycle"}, "haar_video1": _ON_ROADS | {"person", "bicycle"},
    "udacity_solidWhiteRight": _ON_ROADS | {"person", "bicycle"}, "ahmetozlu_input_video": _ON_ROADS - {"bench"},
    "bottle-detection": _NEVER | _ROAD | {"bicycle", "dog", "bag", "chair", "umbrella", "bench", "bird"},
    "car-detection": _ON_ROADS | {"bicycle", "motorcycle", "bus", "truck"},
    "helmet_1": _NEVER - {"ball"} | {"car", "van", "bus", "bicycle", "motorcycle", "dog", "bottle", "chair", "cup", "umbrella", "bench"},
    "imageai_traffic-mini": _NEVER | {"dog", "bottle", "chair", "cup", "bench"},
    "mmtracking_demo": _NEVER | {"bus", "dog", "bottle", "cup"},
    "one-by-one-person-detection": _NEVER | _ROAD | {"bicycle", "dog", "bottle", "umbrella", "bench", "bird"},
    "sam2_01_dog": {"cat", "boat", "horse", "bicycle", "bottle", "chair", "cup", "umbrella"} | _ROAD,
    "nvidia_Retail02_short": {"cat", "boat", "horse", "dog", "bicycle", "bird", "umbrella", "animal", "bench"} | _ROAD,
    "night": _NEVER | {"bottle", "cup", "bird"},
    "coco": set(vocab.CLASSES),  # all that is there is labelled
}


def absent_from(source):
    """Classes that a source's pictures do not show, but for what is labelled in one."""
    return {vocab.CLASS[c] for c in ABSENT.get(source, ())}


def held_out(name):
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100 < HELD_OUT_SHARE


def shrink(image):
    scale = min(1.0, LONG_SIDE / max(image.shape[:2]))
    return image if scale == 1.0 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


class Writer:
    def __init__(self, folder):
        self.folder = folder
        self.records = []
        (folder / "frames").mkdir(parents=True, exist_ok=True)

    def add(self, name, image, labels, ignored, source, split, complete):
        """Boxes in pixels of `image`; colours are measured before the image is shrunk."""
        measured = [colour.measure(image, box[:4], int(box[4]) == PERSON) for box in labels]
        small = shrink(image)
        scale = small.shape[1] / image.shape[1]
        cv2.imwrite(str(self.folder / "frames" / f"{name}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 92])
        round_box = lambda box: [round(float(v) * scale, 1) for v in box[:4]]
        self.records.append({
            "file": f"{name}.jpg", "source": source, "split": split, "scale": scale,
            "boxes": [round_box(b) for b in labels], "classes": [int(b[4]) for b in labels],
            "ignored": [round_box(b) for b in ignored], "colours": [m[0] for m in measured],
            "shares": [m[1] for m in measured], "complete": sorted(complete),
        })


def read_labels(path, width, height):
    if not path.exists():
        return []
    rows = [list(map(float, line.split())) for line in path.read_text().splitlines() if line.strip()]
    size = np.array([width, height, width, height])
    boxes = []
    for kind, cx, cy, w, h in rows:
        box = np.clip(np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]), 0, 1) * size
        boxes.append([*box, int(kind)])
    return boxes


def add_coco(writer, folder):
    for path in sorted((folder / "images").glob("*.jpg")):
        image = cv2.imread(str(path))
        labels = read_labels(folder / "labels" / f"{path.stem}.txt", image.shape[1], image.shape[0])
        labels = [[*b[:4], vocab.FROM_COCO[b[4]]] for b in labels]
        split = "test" if held_out(path.name) else "train"
        writer.add(f"coco_{path.stem}", image, labels, [], "coco", split, range(len(vocab.CLASSES)))


def add_partly_labelled(writer, folder, source, kinds, teacher):
    """Labels hold for `kinds` only. Objects that only the teacher sees are ignored, or taken when of another kind."""
    paths = sorted((folder / "images").glob("*.jpg"), key=lambda p: (len(p.stem), p.stem))  # 2 before 10: in time
    last = len(paths) - HELD_OUT_LAST.get(source, 0)
    for i, path in enumerate(paths):
        image = cv2.imread(str(path))
        labels = read_labels(folder / "labels" / f"{path.stem}.txt", image.shape[1], image.shape[0])
        labels = [[*b[:4], kinds[b[4]]] for b in labels]
        tiny = [b for b in labels if min(b[2] - b[0], b[3] - b[1]) < 4]
        labels = [b for b in labels if min(b[2] - b[0], b[3] - b[1]) >= 4]
        seen, doubtful = teacher(image)
        ignored = tiny
        for box in [*seen, *doubtful]:
            known = labels and iou([box[:4]], [b[:4] for b in labels]).max() > 0.4
            if known:
                continue
            large = len(box) == 5 and box[4] in (vocab.CLASS["bus"], vocab.CLASS["truck"]) and box[2] - box[0] > 30
            (labels if large else ignored).append(box)
        if source in HELD_OUT_LAST:
            split = "test" if i >= last else "neither" if i >= last - GAP else "train"
        else:
            split = "test" if held_out(path.name) else "train"
        writer.add(f"{source}_{i:04d}", image, labels, ignored, source, split, kinds.values())


def frames(path, count):
    """`count` frames spread over the video, at 720 lines at most."""
    capture = cv2.VideoCapture(str(path))
    images = []
    while True:
        good, image = capture.read()
        if not good:
            break
        large = image.shape[1] > 1280
        images.append(cv2.resize(image, (1280, 720), interpolation=cv2.INTER_AREA) if large else image)
    return images[:: max(1, len(images) // count)], images


def moving_cars(image, empty):
    """Boxes of what differs from the empty car park; for the straight-overhead view that detectors cannot read."""
    difference = cv2.absdiff(cv2.GaussianBlur(image, (5, 5), 0), empty).max(2)
    mask = (difference > 38).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3)))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((25, 25)))
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    boxes, ignored = [], []
    for x, y, w, h, area in stats[1:]:
        if area < 500:
            continue
        box = [float(x), float(y), float(x + w), float(y + h)]
        solid = area > 5000 and area > 0.55 * w * h and 0.3 < w / h < 3
        (boxes if solid else ignored).append([*box, CAR] if solid else box)
    return boxes, ignored


def add_video(writer, path, teacher):
    name = path.stem
    chosen, every = frames(path, FRAMES)
    split = "test" if name in HELD_OUT_VIDEOS else "train"
    if name == "car-detection":
        empty = cv2.GaussianBlur(np.median(np.stack(every[::6]), 0).astype(np.uint8), (5, 5), 0)
    for i, image in enumerate(chosen):
        if name == "car-detection":
            labels, ignored = moving_cars(image, empty)
        else:
            labels, ignored = teacher(image)
            allowed = {vocab.CLASS[c] for c in ALLOWED[name]}
            ignored = ignored + [b[:4] for b in labels if b[4] not in allowed]
            labels = [b for b in labels if b[4] in allowed]
        kinds = {vocab.CLASS[c] for c in ALLOWED.get(name, {"car"})}
        writer.add(f"{name}_{i:04d}", image, labels, ignored, name, split, kinds)


def build(data, folder):
    """Reads `data` (see its README) and writes frames and index.json under `folder`; does nothing when they exist."""
    index = folder / "index.json"
    if index.exists():
        return json.loads(index.read_text())
    teacher = Teacher(data / "detectors")
    writer = Writer(folder)
    add_coco(writer, data / "images/coco")
    for path in sorted((data / "videos").iterdir()):
        add_video(writer, path, teacher)
        print(path.stem, len(writer.records), flush=True)
    add_partly_labelled(writer, data / "images/towncentre", "towncentre", {0: PERSON}, teacher)
    add_partly_labelled(writer, data / "images/night", "night", {0: PERSON, 1: CAR}, teacher)
    index.write_text(json.dumps(writer.records))
    return writer.records
