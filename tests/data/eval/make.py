"""Writes pycocotools.json beside this script: random boxes, and the average precisions pycocotools gives them.

    pip install pycocotools==2.0.11 numpy==2.4.6 && python tests/data/eval/make.py

Case after case covers what is easy to get wrong: crowds, equal scores, overlaps that equal a threshold, more than a
hundred boxes, images without things or without boxes, classes without things, outlines smaller than their boxes.
"""

import contextlib
import io
import json
import pathlib

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HERE = pathlib.Path(__file__).parent


def boxes(rng, n, side, whole):
    """n boxes in a picture of side by side pixels, small ones more often than large ones."""
    wh = np.exp(rng.uniform(np.log(4), np.log(side * 0.7), (n, 2)))
    xy = rng.uniform(0, 1, (n, 2)) * (side - wh)
    out = np.concatenate([xy, wh], 1)
    return np.maximum(np.round(out), [0, 0, 1, 1]) if whole else np.round(out, 2)


def case(name, seed, images=6, classes=3, things=4, answers=6, side=320, whole=False, crowd=0.0, levels=None,
         empty=(), silent=(), unseen=(), outlines=False, noise=0.15):
    """empty: images without things; silent: images without boxes; unseen: classes without things."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for image in range(1, images + 1):
        for kind in range(1, classes + 1):
            real = boxes(rng, rng.integers(0, things + 1), side, whole)
            if image in empty or kind in unseen:
                real = real[:0]
            for box in real:
                share = rng.uniform(0.3, 1) if outlines else 1
                truths.append([image, kind, *box.tolist(), round(float(box[2] * box[3] * share), 3),
                               int(rng.random() < crowd)])
            if image in silent:
                continue
            moved = real + rng.normal(0, noise, real.shape) * np.tile(real[:, 2:], 2)
            moved[:, 2:] = np.maximum(moved[:, 2:], 1)
            moved = np.round(moved) if whole else np.round(moved, 2)
            stray = boxes(rng, rng.integers(0, answers + 1), side, whole)
            for box in rng.permutation(np.concatenate([moved, stray, real[: len(real) // 3]])):
                score = rng.random() if levels is None else rng.integers(1, levels + 1) / levels
                found.append([image, kind, *box.tolist(), float(score)])
    return {"name": name, "images": list(range(1, images + 1)), "classes": list(range(1, classes + 1)),
            "truths": truths, "found": found}


def known(value):
    return None if value < 0 else float(value)


def measured(case):
    """The case with what pycocotools says of it."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in case["images"]],
        "categories": [{"id": c, "name": str(c)} for c in case["classes"]],
        "annotations": [{"id": n, "image_id": t[0], "category_id": t[1], "bbox": t[2:6], "area": t[6], "iscrowd": t[7]}
                        for n, t in enumerate(case["truths"], 1)],
    }
    truth.createIndex()
    answers = COCO()
    answers.dataset = {
        **truth.dataset,
        "annotations": [{"id": n, "image_id": f[0], "category_id": f[1], "bbox": f[2:6], "area": f[4] * f[5],
                         "iscrowd": 0, "score": f[6]} for n, f in enumerate(case["found"], 1)],
    }
    answers.createIndex()
    judge = COCOeval(truth, answers, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    precision, recall = judge.eval["precision"], judge.eval["recall"]  # [T,R,K,A,M], [T,K,A,M]

    def mean(values):
        values = values[values > -1]
        return known(values.mean()) if len(values) else None

    def six(p):  # [T,R,A]
        return [mean(p[:, :, 0]), mean(p[0, :, 0]), mean(p[5, :, 0]), *(mean(p[:, :, a]) for a in (1, 2, 3))]

    case["mean"] = [known(v) for v in judge.stats[:6]]
    case["each"] = [[six(precision[:, :, k, :, 2]), known(recall[0, k, 0, 2])] for k in range(len(case["classes"]))]
    return case


CASES = [
    case("plain", 1),
    case("crowds", 2, crowd=0.3, things=6),
    case("crowds only, and outlines", 3, crowd=0.9, outlines=True),
    case("equal scores", 4, levels=3, images=10),
    case("all scores the same", 5, levels=1, images=8),
    case("overlaps that equal thresholds", 6, whole=True, side=24, things=6, answers=10, levels=5, crowd=0.2, noise=0.2),
    case("more than a hundred boxes", 7, images=2, classes=2, things=12, answers=260, levels=40, whole=True),
    case("empty and silent images", 8, images=9, empty=(1, 4, 9), silent=(2, 4), crowd=0.1),
    case("a class without things", 9, classes=4, unseen=(2, 4)),
    case("no things at all", 10, images=3, unseen=(1, 2, 3)),
    case("no boxes at all", 11, images=3, silent=(1, 2, 3)),
    case("large pictures", 12, side=1500, outlines=True, crowd=0.1, things=8, noise=0.05),
]

with contextlib.redirect_stdout(io.StringIO()):
    CASES = [measured(one) for one in CASES]
(HERE / "pycocotools.json").write_text("[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in CASES) + "\n]\n")
