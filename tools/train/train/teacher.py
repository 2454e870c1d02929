"""Ready-made detectors as teachers for frames that nobody labelled.

Two detectors look at the whole frame and at overlapping tiles (small objects). What they agree on becomes a label,
what only one of them half believes becomes `ignore`: neither an object nor background.
"""

import cv2
import numpy as np
import onnxruntime

from . import vocab

LOOK = 0.15      # detections below are dropped at once
SURE = 0.45      # a cluster's score from which it is a label
DOUBT = 0.22     # from here to SURE it is ignored
PART = 0.75      # share of a box within another of its kind from which it may be a part of that
SIZE = 416


def _session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Yolox:
    def __init__(self, folder):
        self.session = _session(folder / "yolox_nano.onnx")
        grids, strides = [], []
        for stride in (8, 16, 32):
            n = SIZE // stride
            ys, xs = np.mgrid[:n, :n]
            grids.append(np.stack([xs, ys], -1).reshape(-1, 2))
            strides.append(np.full((n * n, 1), stride))
        self.grid, self.stride = np.concatenate(grids), np.concatenate(strides)

    def __call__(self, bgr):
        h, w = bgr.shape[:2]
        scale = min(SIZE / h, SIZE / w)
        canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
        small = cv2.resize(bgr, (round(w * scale), round(h * scale)))
        canvas[: small.shape[0], : small.shape[1]] = small
        feed = {self.session.get_inputs()[0].name: canvas.transpose(2, 0, 1)[None].astype(np.float32)}
        out = self.session.run(None, feed)[0][0]
        scores = out[:, 4:5] * out[:, 5:]
        centre = (out[:, :2] + self.grid) * self.stride
        half = np.exp(out[:, 2:4]) * self.stride / 2
        return np.concatenate([centre - half, centre + half], 1) / scale, scores


class PicoDet:
    mean = np.array([123.675, 116.28, 103.53], np.float32)
    std = np.array([58.395, 57.12, 57.375], np.float32)

    def __init__(self, folder):
        self.session = _session(folder / "picodet_s_416_coco.onnx")
        self.bins = np.arange(8, dtype=np.float32)

    def __call__(self, bgr):
        h, w = bgr.shape[:2]
        rgb = cv2.cvtColor(cv2.resize(bgr, (SIZE, SIZE)), cv2.COLOR_BGR2RGB).astype(np.float32)
        feed = {self.session.get_inputs()[0].name: ((rgb - self.mean) / self.std).transpose(2, 0, 1)[None]}
        outputs = [o.reshape(o.shape[-2:]) for o in self.session.run(None, feed)]
        boxes, scores = [], []
        for stride in (8, 16, 32, 64):
            n = -(-SIZE // stride)
            score = next(o for o in outputs if o.shape == (n * n, 80))
            raw = next(o for o in outputs if o.shape == (n * n, 32)).reshape(-1, 4, 8)
            raw = np.exp(raw - raw.max(-1, keepdims=True))
            sides = (raw / raw.sum(-1, keepdims=True)) @ self.bins * stride
            ys, xs = np.mgrid[:n, :n]
            centre = (np.stack([xs, ys], -1).reshape(-1, 2) + 0.5) * stride
            boxes.append(np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], 1))
            scores.append(score)
        return np.concatenate(boxes) * ([w / SIZE, h / SIZE] * 2), np.concatenate(scores)


def iou(a, b):
    """Pairwise IoU of xyxy boxes, [len(a), len(b)]."""
    a, b = np.asarray(a, np.float32).reshape(-1, 4), np.asarray(b, np.float32).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area = lambda x: (x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1])
    return inter / (area(a)[:, None] + area(b)[None] - inter + 1e-6)


def tiles(w, h):
    """The whole frame, then two by two overlapping tiles, then a finer row for large frames."""
    views = [(0, 0, w, h)]
    grids = [2, 3] if w >= 900 else [2]
    for n in grids:
        tw, th = int(w / (n - 0.3 * (n - 1))), int(h / (n - 0.3 * (n - 1)))
        for j in range(n):
            for i in range(n):
                x, y = (w - tw) * i // (n - 1), (h - th) * j // (n - 1)
                views.append((x, y, x + tw, y + th))
    return views


def whole(labels, ignored):
    """A tile shows half a person and it is found as one: what lies within a larger box of its kind may be a part of it, and is ignored."""
    kept = []
    for i, (x1, y1, x2, y2, kind) in enumerate(labels):
        area = (x2 - x1) * (y2 - y1)
        for a1, b1, a2, b2, other in labels[:i] + labels[i + 1:]:
            common = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            if other == kind and common > PART * area and (a2 - a1) * (b2 - b1) > 1.5 * area:
                ignored.append([x1, y1, x2, y2])
                break
        else:
            kept.append(labels[i])
    return kept, ignored


class Teacher:
    def __init__(self, folder):
        self.models = [Yolox(folder), PicoDet(folder)]
        self.map = np.array(vocab.FROM_COCO)

    def detections(self, bgr):
        """(box, class, score, model) of every model in every view, each view after its own NMS."""
        h, w = bgr.shape[:2]
        found = []
        for x1, y1, x2, y2 in tiles(w, h):
            view = bgr[y1:y2, x1:x2]
            edges = np.array([x1 > 0, y1 > 0, x2 < w, y2 < h])
            for m, model in enumerate(self.models):
                boxes, scores = model(view)
                best = scores.max(1)
                keep = np.flatnonzero(best > LOOK)
                order = keep[np.argsort(-best[keep])][:150]
                boxes, best, kinds = boxes[order], best[order], self.map[scores[order].argmax(1)]
                limit = np.array([x2 - x1, y2 - y1] * 2)
                cut = ((np.abs(boxes - np.array([0, 0, limit[2], limit[3]])) < 4) & edges).any(1)
                boxes = np.clip(boxes, 0, limit) + [x1, y1, x1, y1]
                overlap = iou(boxes, boxes)
                alive = ~cut
                for i in range(len(boxes)):
                    if alive[i]:
                        found.append((boxes[i], kinds[i], best[i], m))
                        alive &= overlap[i] < 0.6
        return found

    def __call__(self, bgr):
        """Labels [[x1,y1,x2,y2,class]] and ignored boxes [[x1,y1,x2,y2]] in pixels."""
        found = sorted(self.detections(bgr), key=lambda d: -d[2])
        clusters = []
        for box, kind, score, model in found:
            if clusters:
                overlaps = iou([box], [c["box"] for c in clusters])[0]
                best = int(overlaps.argmax())
                if overlaps[best] > 0.5:
                    cluster = clusters[best]
                    cluster["votes"][kind] = cluster["votes"].get(kind, 0) + score
                    cluster["models"][model] = max(cluster["models"].get(model, 0), score)
                    continue
            clusters.append({"box": box, "votes": {kind: score}, "models": {model: score}})
        labels, ignored = [], []
        for cluster in clusters:
            kind = max(cluster["votes"], key=cluster["votes"].get)
            clear = cluster["votes"][kind] > 0.6 * sum(cluster["votes"].values())
            both = len(cluster["models"]) == 2
            score = max(cluster["models"].values()) + (0.12 if both else -0.05)
            if score >= SURE and clear and kind != vocab.OTHER:
                labels.append([*map(float, cluster["box"]), int(kind)])
            elif score >= DOUBT:
                ignored.append([*map(float, cluster["box"])])
        return whole(labels, ignored)
