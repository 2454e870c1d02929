"""Real detectors on real pictures: groundd against the same ONNX file and its reference's own code.

    pip install numpy==2.4.6 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 pycocotools==2.0.11
    python tools/parity/detectors.py --pictures DIR --detector yolox=yolox_nano.onnx --detector picodet=….onnx
    python tools/parity/detectors.py --films a.mp4 b.mp4 --teacher picodet=….onnx --detector yolox=yolox_nano.onnx

DIR has `images/*.jpg|png` and `labels/*.txt` (YOLO text: class and centre, size in fractions). The files are not the
project's; bring your own. The reference side is OpenCV's resize and suppression around ONNX Runtime; the groundd side
is the ignored test `heads::real_pictures`, through the daemon's own interface. Both see the same decoded pixels. AP is
COCO's, at an overlap of 0.5, by pycocotools; exits with 1 where the two differ by more than 0.01.

`--regions` asks detectors as proposers of anything: one candidate a cell, suppressed whatever its class
(`heads::offering::real_pictures`). It counts as sure as the best of its classes makes it; YOLOX's by its objectness alone,
which finds more of what people labelled in COCO than the published product does. `--films` does so on every 30th frame of some films; nobody labelled
those: another detector did, the teacher, with what it is at least half sure of.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import cv2
import numpy as np
import onnxruntime
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEAST, SURE, ALLOWED = 0.05, 0.5, 0.01
BINS, EVERY = 8, 30


def stretched(bgr, side, rgb, scale, mean, std):
    image = cv2.resize(bgr, (side, side), interpolation=cv2.INTER_LINEAR)
    image = (image[:, :, ::-1] if rgb else image).astype(np.float32) * np.float32(scale)
    return ((image - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1), (bgr.shape[1] / side, bgr.shape[0] / side)


def corner(bgr, side):
    ratio = min(side / bgr.shape[0], side / bgr.shape[1])
    size = int(bgr.shape[1] * ratio), int(bgr.shape[0] * ratio)
    image = np.full((side, side, 3), 114, np.uint8)
    image[:size[1], :size[0]] = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
    return image.transpose(2, 0, 1).astype(np.float32), (1 / ratio, 1 / ratio)


def cells(side, strides, centre):
    out = []
    for stride in strides:
        n = -(-side // stride)
        y, x = np.mgrid[0:n, 0:n]
        out.append(np.stack([(x + centre).ravel(), (y + centre).ravel(), np.full(n * n, stride)], axis=1))
    return np.concatenate(out).astype(np.float32)


def yolox(outputs, side):
    rows, cell = outputs[0][0], cells(side, (8, 16, 32), 0.0)
    centre, size = (rows[:, :2] + cell[:, :2]) * cell[:, 2:], np.exp(rows[:, 2:4]) * cell[:, 2:]
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1), rows[:, 4:5] * rows[:, 5:], rows[:, 4], 0.65


def distances(strides):
    def read(outputs, side):
        width = 4 * BINS
        scores = np.concatenate([v[0] for v in outputs if v.shape[2] != width])
        places = np.concatenate([v[0] for v in outputs if v.shape[2] == width])
        share = np.exp(places.reshape(-1, 4, BINS))
        cell = cells(side, strides, 0.5)
        told = (share / share.sum(2, keepdims=True)) @ np.arange(BINS) * cell[:, 2:]
        middle = cell[:, :2] * cell[:, 2:]
        boxes = np.concatenate([middle - told[:, :2], middle + told[:, 2:]], axis=1)
        return boxes, scores, None, 0.6
    return read


def fastestdet(outputs, side):
    told = outputs[0][0].transpose(1, 2, 0)
    rows, columns = told.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns]
    centre = (np.tanh(told[..., 1:3]) + np.stack([x, y], axis=2)) / np.float32([columns, rows]) * side
    size = side / (1 + np.exp(-told[..., 3:5]))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=2).reshape(-1, 4)
    scores = told[..., :1] ** 0.6 * told[..., 5:] ** 0.4
    scores = scores.reshape(len(boxes), -1)
    return boxes, scores, scores.max(1), 0.45


def normed(rgb, scale, mean, std):
    return lambda bgr, side: stretched(bgr, side, rgb, scale, mean, std)


# How a picture is prepared; and from a file's outputs boxes, their scores by class, how sure a box is to hold anything (where
# it has one class, the best, and not every class that is likely enough), and above which overlap the lesser box goes.
FAMILIES = {
    "yolox": (corner, yolox),
    "nanodet": (normed(False, 1.0, [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]), distances((8, 16, 32))),
    "fastestdet": (normed(False, 1 / 255, [0.0] * 3, [1.0] * 3), fastestdet),
    "picodet": (normed(True, 1 / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), distances((8, 16, 32, 64))),
}


def reference(family, file, pictures, regions, least=LEAST):
    prepare, read = FAMILIES[family]
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    port, found = session.get_inputs()[0], []
    for number, path in enumerate(pictures):
        bgr = cv2.imread(str(path))
        tensor, (sx, sy) = prepare(bgr, port.shape[2])
        boxes, scores, sure, iou = read(session.run(None, {port.name: tensor[None]}), port.shape[2])
        if regions:
            scores, labels = scores.max(1) if sure is None else sure, np.zeros(len(boxes), int)
        elif sure is not None:
            scores, labels = scores.max(1), scores.argmax(1)
        else:
            at, labels = np.nonzero(scores >= least)
            boxes, scores = boxes[at], scores[at, labels]
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        keep = cv2.dnn.NMSBoxesBatched(xywh.tolist(), scores.tolist(), labels.tolist(), least, iou)
        for i in keep:
            x1, y1, x2, y2 = boxes[i] * [sx, sy, sx, sy]
            x1, x2 = np.clip([x1, x2], 0, bgr.shape[1])
            y1, y2 = np.clip([y1, y2], 0, bgr.shape[0])
            found.append({"image_id": number, "category_id": int(labels[i]), "score": float(scores[i]),
                          "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]})
    return found


def groundd(folder, pictures, regions, scratch):
    told = scratch / "found.json"
    env = {**os.environ, "GROUNDD_PARITY_MODEL": str(folder), "GROUNDD_PARITY_PICTURES": str(pictures[0].parent),
           "GROUNDD_PARITY_LEAST": str(LEAST), "GROUNDD_PARITY_FOUND": str(told)}
    asked = "heads::offering::real_pictures" if regions else "heads::real_pictures"
    subprocess.run(["cargo", "test", "--locked", "--quiet", "--test", "tests", asked, "--", "--ignored", "--exact"], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    return [{"image_id": number, "category_id": label, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for number, label, x1, y1, x2, y2, score in json.loads(told.read_text())]


def frames(films, count, folder):
    """Every so-manyeth frame of each film, as pictures; `count` of all together at most."""
    pictures = []
    for at, film in enumerate(films):
        reader, most = cv2.VideoCapture(str(film)), len(pictures) + (count - len(pictures)) // (len(films) - at)
        for number in itertools.count():
            if len(pictures) == most or not reader.grab():
                break
            if number % EVERY == 0:
                pictures.append(folder / f"{at:03}-{number:06}.png")
                cv2.imwrite(str(pictures[-1]), reader.retrieve()[1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return pictures


def taught(pictures, found):
    """What a teacher found, as if it were true."""
    sizes = [cv2.imread(str(path)).shape for path in pictures]
    return dataset([{"id": number, "width": shape[1], "height": shape[0]} for number, shape in enumerate(sizes)],
                   [{**box, "id": at + 1, "category_id": 0, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0}
                    for at, box in enumerate(found)])


def dataset(images, boxes):
    coco = COCO()
    coco.dataset = {"images": images, "annotations": boxes, "categories": [{"id": i} for i in range(80)], "info": {}}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def truth(pictures, labels, regions):
    images, boxes = [], []
    for number, path in enumerate(pictures):
        height, width = cv2.imread(str(path)).shape[:2]
        images.append({"id": number, "width": width, "height": height})
        file = labels / f"{path.stem}.txt"
        for line in file.read_text().splitlines() if file.is_file() else ():
            label, cx, cy, w, h = map(float, line.split()[:5])
            w, h = w * width, h * height
            boxes.append({"id": len(boxes) + 1, "image_id": number, "category_id": int(label) * (not regions), "area": w * h,
                          "iscrowd": 0, "bbox": [cx * width - w / 2, cy * height - h / 2, w, h]})
    return dataset(images, boxes)


def ap(coco, found):
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    return judge.stats[1], judge.stats[0], judge.stats[8]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", type=pathlib.Path, help="a folder with images and labels")
    source.add_argument("--films", type=pathlib.Path, nargs="+", help="with --teacher, for regions")
    parser.add_argument("--teacher", metavar="FAMILY=FILE", help="what it is sure of counts as true in films")
    parser.add_argument("--regions", action="store_true", help="detectors as proposers of anything")
    parser.add_argument("--detector", action="append", required=True, metavar="FAMILY=FILE")
    parser.add_argument("--count", type=int, default=400, help="pictures looked at (400)")
    given = parser.parse_args()
    if bool(given.films) != bool(given.teacher):
        parser.error("--films and --teacher go together")
    cv2.setNumThreads(1)
    worst, regions = 0.0, bool(given.regions or given.films)
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        (scratch / "pictures").mkdir()
        pictures = []
        if given.films:
            pictures = frames(given.films, given.count, scratch / "pictures")
            coco = taught(pictures, reference(*given.teacher.split("=", 1), pictures, False, SURE))
        else:
            for path in sorted((given.pictures / "images").iterdir())[:given.count]:
                pictures.append(scratch / "pictures" / f"{path.stem}.png")
                cv2.imwrite(str(pictures[-1]), cv2.imread(str(path)), [cv2.IMWRITE_PNG_COMPRESSION, 1])
            coco = truth(pictures, given.pictures / "labels", regions)
        for detector in given.detector:
            family, file = detector.split("=", 1)
            model = scratch / pathlib.Path(file).stem
            subprocess.run([sys.executable, ROOT / "tools/export/wrap.py", family, file, model, "--licence", "unknown"],
                           check=True, stdout=subprocess.DEVNULL)
            theirs = ap(coco, reference(family, file, pictures, regions))
            what = "pictures, regions" if regions else "pictures"
            manifest = model / "model.toml"
            as_wrapped = manifest.read_text()
            with_border = as_wrapped.replace("rect = true\n", "")
            # As the reference sees pictures; and, of those that need no border, without it.
            for seen, text in {"": with_border, " without the border": as_wrapped}.items():
                if seen and text == with_border:
                    continue
                manifest.write_text(text)
                ours = ap(coco, groundd(model, pictures, regions, scratch))
                worst = max(worst, abs(theirs[0] - ours[0]))
                print(f"{family} {pathlib.Path(file).name}, {len(pictures)} {what}, {len(coco.anns)} true: AP50 reference {theirs[0]:.4f}, "
                      f"groundd{seen} {ours[0]:.4f}; AP50:95 {theirs[1]:.4f}, {ours[1]:.4f}; "
                      f"recall {theirs[2]:.4f}, {ours[2]:.4f}", flush=True)
    sys.exit(1 if worst > ALLOWED else 0)


if __name__ == "__main__":
    main()
