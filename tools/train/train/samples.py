"""One training sample: a real frame, a real frame with drawings on it, or a drawn street; plus its queries."""

import cv2
import numpy as np

from . import compose, data, phrases
from .phrases import Scene
from .spec import HEIGHT, WIDTH
from .wild import mixture

KERNELS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_AREA)
LEAST = 5.0          # canvas pixels: smaller objects are ignored rather than asked for
GAPPY = {"night"}    # sets whose labels miss some objects
OBJECTS = 32         # kept per image; the smallest of the rest are ignored
QUERIES = 5


class Frame:
    """Pixels with objects, before it is put on the canvas."""

    def __init__(self, image, boxes, classes, colours, shares, ignored, complete, drawn, trusted=True):
        self.image, self.boxes, self.classes, self.colours = image, boxes, classes, colours
        self.shares, self.ignored, self.complete, self.drawn = shares, ignored, complete, drawn
        self.trusted = complete if trusted else set()  # classes of which an unlabelled object is no object
        self.absent = set()  # classes of which there surely is none, not even one that is ignored

    @classmethod
    def bare(cls, image, complete):
        """A picture without objects, yet; `complete` are the classes of which there certainly are no others."""
        none = np.zeros((0, 4), np.float32)
        frame = cls(image, none, np.zeros(0, np.int16), np.zeros((0, 3), np.int16), np.zeros((0, 3, 11), np.float32), none, set(complete), np.zeros(0, bool))
        frame.absent = set(complete)
        return frame

    @classmethod
    def read(cls, folder, record):
        n = len(record["boxes"])
        array = lambda key, *shape: np.array(record[key], np.float32).reshape(n, *shape)
        frame = cls(
            cv2.imread(str(folder / "frames" / record["file"])), array("boxes", 4), array("classes").astype(np.int16),
            array("colours", 3).astype(np.int16), array("shares", 3, 11),
            np.array(record["ignored"], np.float32).reshape(-1, 4), set(record["complete"]), np.zeros(n, bool),
            record["source"] not in GAPPY,
        )
        frame.absent = data.absent_from(record["source"]) - set(record["classes"])
        return frame

    def keep(self, mask):
        for name in ("boxes", "classes", "colours", "shares", "drawn"):
            setattr(self, name, getattr(self, name)[mask])

    def ignore(self, mask):
        """Objects that can no longer be told: neither found nor missed."""
        self.ignored = np.concatenate([self.ignored, self.boxes[mask]])
        self.keep(~mask)


def place(frame, rng, crop, into, out, kernels=KERNELS):
    """Cuts `crop` (xyxy) out of the frame and fits it, centred, into the rectangle `into` of the canvas `out`."""
    x1, y1, x2, y2 = crop
    ix, iy, iw, ih = into
    scale = min(iw / (x2 - x1), ih / (y2 - y1))
    w, h = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    ox, oy = ix + (iw - w) // 2, iy + (ih - h) // 2
    piece = frame.image[int(y1):int(y2), int(x1):int(x2)]
    out[oy:oy + h, ox:ox + w] = cv2.resize(piece, (w, h), interpolation=kernels[rng.integers(len(kernels))])
    shift, limit = np.array([x1, y1, x1, y1]), np.array([w, h, w, h])
    full = (frame.boxes - shift) * scale
    seen = np.clip(full, 0, limit)
    size = lambda b: np.clip(b[:, 2:] - b[:, :2], 0, None).prod(1)
    share = size(seen) / np.maximum(size(full), 1e-3)
    frame.boxes = seen + [ox, oy, ox, oy]
    frame.ignored = np.clip((frame.ignored - shift) * scale, 0, limit) + [ox, oy, ox, oy]
    frame.ignored = frame.ignored[size(frame.ignored) > 1]
    frame.keep(share > 0.02)
    share = share[share > 0.02]
    small = (frame.boxes[:, 2:] - frame.boxes[:, :2]).min(1, initial=1e9) < LEAST
    frame.ignore(small | (share < 0.25))


def random_crop(frame, rng, aspect, low=0.4):
    """A window of about the canvas's shape; kept where something is, most of the time."""
    h, w = frame.image.shape[:2]
    scale = rng.uniform(low, 1.0)
    shape = aspect * np.exp(rng.uniform(-0.25, 0.25))
    ch = scale * min(h, w / shape)
    cw = min(w, ch * shape)
    x, y = rng.uniform(0, w - cw), rng.uniform(0, h - ch)
    if len(frame.boxes) and rng.random() < 0.8:
        box = frame.boxes[rng.integers(len(frame.boxes))]
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        x = np.clip(cx - rng.uniform(0.2, 0.8) * cw, 0, w - cw)
        y = np.clip(cy - rng.uniform(0.2, 0.8) * ch, 0, h - ch)
    return int(x), int(y), int(x + cw), int(y + ch)


def flip(frame):
    w = frame.image.shape[1]
    frame.image = np.ascontiguousarray(frame.image[:, ::-1])
    for name in ("boxes", "ignored"):
        boxes = getattr(frame, name)
        setattr(frame, name, np.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], 1).reshape(-1, 4))


def photometric(image, rng):
    """Light, contrast, noise and compression, within what leaves the names of colours true."""
    mean, levels = float(image[::8, ::8].mean()), np.arange(256, dtype=np.float32)[:, None]
    levels = (levels - mean) * rng.uniform(0.8, 1.2) + mean * rng.uniform(0.78, 1.2)
    levels = levels + rng.uniform(-16, 16) + rng.uniform(-6, 6, 3)
    image = cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)[:, None])
    if rng.random() < 0.25:
        noise = np.empty(image.shape[:2], np.int16)
        cv2.randn(noise, 0, rng.uniform(1, 7))
        image = np.clip(image + noise[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        image = cv2.GaussianBlur(image, (3, 3), 0)
    if rng.random() < 0.25:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))])
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image


def merge(frames):
    first = frames[0]
    for name in ("boxes", "classes", "colours", "shares", "ignored", "drawn"):
        setattr(first, name, np.concatenate([getattr(f, name) for f in frames]))
    first.complete = set.intersection(*[f.complete for f in frames])
    first.trusted = set.intersection(*[f.trusted for f in frames])
    first.absent = set.intersection(*[f.absent for f in frames])
    return first


SHARES = {"coco": 30, "night": 3, "towncentre": 3, "mmtracking_demo": 2, "ahmetozlu_cutl": 2, "theaiguys_test": 2,
          "helmet_1": 1.5, "imageai_traffic-mini": 1.5}  # how often each source is drawn from; others 1
PHOTOGRAPHS = 0.6    # of what mixtures are made of: no two are alike, as frames of a video are


class Sampler:
    def __init__(self, folder, records, sprites, seed, drawn=0.1, pasted=0.2):
        self.folder, self.sprites, self.drawn, self.pasted = folder, sprites, drawn, pasted
        self.rng = np.random.default_rng(seed)
        self.records = records
        counts = {}
        for record in records:
            counts[record["source"]] = counts.get(record["source"], 0) + 1
        share = np.array([SHARES.get(r["source"], 1) / counts[r["source"]] for r in records])
        self.share = share / share.sum()
        self.photographs = [r for r in records if r["source"] == "coco"]

    def real(self):
        frame = Frame.read(self.folder, self.records[self.rng.choice(len(self.records), p=self.share)])
        if self.rng.random() < 0.5:
            flip(frame)
        return frame

    def wild(self):
        """A mixture of which nothing is known: it has no objects, and nothing that is seen on it is wrong."""

        def draw():
            chosen = self.photographs if self.rng.random() < PHOTOGRAPHS else self.records
            frame = Frame.read(self.folder, chosen[self.rng.integers(len(chosen))])
            return frame.image, frame.boxes

        return Frame.bare(photometric(mixture(draw, self.rng), self.rng), ())

    def on_canvas(self, frame, canvas, into=(0, 0, WIDTH, HEIGHT)):
        h, w = frame.image.shape[:2]
        whole = self.rng.random() < 0.35
        crop = (0, 0, w, h) if whole else random_crop(frame, self.rng, into[2] / into[3])
        place(frame, self.rng, crop, into, canvas)
        return frame

    def scene(self):
        rng = self.rng
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        roll = rng.random()
        if roll < self.drawn:
            frame = compose.drawn_scene(self.sprites, rng, Frame)
            place(frame, rng, (0, 0, frame.image.shape[1], frame.image.shape[0]), (0, 0, WIDTH, HEIGHT), canvas)
            frame.image = photometric(canvas, rng)
            return self.limited(frame)
        layout = rng.random()
        if layout < 0.15:  # two frames side by side
            half = WIDTH // 2
            frame = merge([self.on_canvas(self.real(), canvas, (x, 0, half, HEIGHT)) for x in (0, half)])
        elif layout < 0.3:  # four: many small things
            w, h = WIDTH // 2, HEIGHT // 2
            frame = merge([self.on_canvas(self.real(), canvas, (x, y, w, h)) for x in (0, w) for y in (0, h)])
        else:
            frame = self.on_canvas(self.real(), canvas)
        if rng.random() < self.pasted:
            compose.paste(frame, canvas, self.sprites, rng)
        frame.image = photometric(canvas, rng)
        return self.limited(frame)

    @staticmethod
    def limited(frame):
        if len(frame.boxes) > OBJECTS:
            area = (frame.boxes[:, 2:] - frame.boxes[:, :2]).prod(1)
            mask = np.zeros(len(area), bool)
            mask[np.argsort(-area)[OBJECTS:]] = True
            frame.ignore(mask)
        return frame


def scene_of(frame):
    return Scene(frame.boxes, frame.classes, frame.colours, frame.shares, frame.complete, len(frame.ignored) > 0, frame.drawn, frame.ignored,
                 frame.absent)


def queries(frame, rng, count):
    return phrases.Writer(scene_of(frame), rng).write(count)
