#!/usr/bin/env python3
r"""A ready-made detector in ONNX -> a folder that groundd runs. Needs nothing but Python 3.11 or later.

    python3 tools/export/wrap.py yolox yolox_nano.onnx models/yolox-nano --licence Apache-2.0
    python3 tools/export/wrap.py rt-detr model.onnx models/rtdetr-r50 --classes names.txt --size 640x640 \
        --licence Apache-2.0
    python3 tools/export/wrap.py deformable-detr upn.onnx models/upn --classes thing.txt --size 1333x750 \
        --objectness 0.3 --nms-iou 0.8 --licence …

Writes OUT/model.toml and copies the file, with the files beside it that hold its weights. What a family's files usually
expect of a picture is filled in; the file cannot say whether that is true, so look at model.toml, and at what the detector finds, before relying on it.
`--classes` is a file with a name a line, in the order of the scores (an empty line, or N/A, is a place that stands for nothing);
without it the 80 names of COCO, for RF-DETR COCO's 91 places.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys

COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,"
    "bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,"
    "sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,"
    "bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,"
    "toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush").split(",")
# Of COCO's ids 0 to 90 these were never used.
UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
WORDS = {
    "people": "person", "man": "person", "woman": "person", "child": "person", "pedestrian": "person", "bike": "bicycle",
    "motorbike": "motorcycle", "aeroplane": "airplane", "plane": "airplane", "lorry": "truck", "hydrant": "fire hydrant",
    "sofa": "couch", "television": "tv", "monitor": "tv", "plant": "potted plant", "table": "dining table",
    "mobile phone": "cell phone", "phone": "cell phone", "fridge": "refrigerator", "doughnut": "donut",
    "rucksack": "backpack", "teddy": "teddy bear",
}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": 1 / 255}
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
NANODET = {"mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "scale": 1.0, "channels": "bgr"}
STRETCH = {"fit": "stretch", "resample": "linear"}
# Size; [input]; [head]; overlap above which the lesser box goes.
FAMILIES = {
    "yolox": ("416x416", {"fit": "corner", "pad": 114, "rect": True, "resample": "linear", "channels": "bgr", "scale": 1.0, **PLAIN},
              {"strides": [8, 16, 32]}, 0.65),
    "nanodet": ("416x416", {**STRETCH, **NANODET}, {"strides": [8, 16, 32], "centre": 0.5}, 0.6),
    "picodet": ("416x416", {**STRETCH, **IMAGENET}, {"strides": [8, 16, 32, 64], "centre": 0.5}, 0.6),
    "fastestdet": ("352x352", {**STRETCH, "channels": "bgr", "scale": 1 / 255, **PLAIN}, {"strides": [16]}, 0.45),
    "rt-detr": ("640x640", {"fit": "stretch", "resample": "bilinear", "scale": 1 / 255, **PLAIN}, {}, 1.0),
    "d-fine": ("640x640", {"fit": "stretch", "resample": "bilinear", "scale": 1 / 255, **PLAIN}, {}, 1.0),
    "rf-detr": ("560x560", {"fit": "stretch", "resample": "bilinear", **IMAGENET}, {}, 1.0),
    "deformable-detr": ("1333x800", {"fit": "shortest", "shortest": 800, "longest": 1333}, {}, 1.0),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("file", type=pathlib.Path, help="the detector, an .onnx file")
    parser.add_argument("out", type=pathlib.Path, help="the folder to write; must not exist")
    parser.add_argument("--classes", type=pathlib.Path, help="a name a line; COCO's unless given")
    parser.add_argument("--size", help="width x height of the model's picture, as in 640x640")
    parser.add_argument("--strides", help="steps of the grids in pixels, as in 8,16,32,64")
    parser.add_argument("--joined-raw", action="store_true",
                        help="NanoDet-Plus: raw scores, cells told from their corner, four grids")
    parser.add_argument("--match", type=float, default=0.3, help="least score of a match (0.3)")
    parser.add_argument("--objectness", type=float, default=0.05, help="least score of a region offered to others (0.05)")
    parser.add_argument("--nms-iou", type=float, help="of two boxes of a class that overlap more, the lesser goes; default "
                        "is the family's")
    parser.add_argument("--name", help="the model's name in messages; default is the folder's")
    parser.add_argument("--licence", required=True, help="of the weights, as in Apache-2.0")
    parser.add_argument("--provenance", help="where the file comes from; default is its name")
    return parser.parse_args()


def toml(value):
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def classes(given):
    if given.classes:
        names = [line.strip() for line in given.classes.read_text(encoding="utf-8").splitlines()]
        return names, {}
    if given.family != "rf-detr":
        return COCO, WORDS
    names = iter(COCO)
    return ["" if i in UNUSED else next(names) for i in range(91)], WORDS


def elsewhere(data):
    """The files in which an .onnx says that its weights lie. That needs no reader of protobuf: a tensor says so by a pair of
    `location` and the name, each behind its length."""
    names = set()
    for found in re.finditer(rb"\x0a\x08location\x12", data):
        length, shift, at = 0, 0, found.end()
        while at < len(data):
            length |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                break
        try:
            names.add(data[at:at + length].decode())
        except UnicodeDecodeError:
            continue
    return sorted(names)


def beside(file, data):
    """What has to lie beside the copy for it to be opened, under the very names."""
    names = elsewhere(data)
    for name in names:
        if not name.startswith((f"{file.name}_data", f"{file.name}.data")) or pathlib.PurePath(name).name != name:
            sys.exit(f"wrap: {file} has weights in `{name}`, by which name nobody would know whose they are; save it with them in "
                     f"itself, or in `{file.name}.data` beside it")
        if not (file.parent / name).is_file():
            sys.exit(f"wrap: {file} has weights in `{name}`, and there is no such file beside it; put it there")
    return [file.parent / name for name in names]


def listed(role, path, name):
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ["", "[[files]]", f"role = {toml(role)}", f"path = {toml(name)}", f"bytes = {path.stat().st_size}",
            f"sha256 = {toml(digest)}"]


def main():
    given = arguments()
    size, settings, head, iou = FAMILIES[given.family]
    name = given.name or given.out.name
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        sys.exit(f"wrap: the name `{name}` should be 1 to 64 ASCII letters, digits, `-`, `_` or `.`; pass --name")
    if given.out.exists():
        sys.exit(f"wrap: {given.out} exists already; remove it, or name another folder")
    if not re.fullmatch(r"[1-9][0-9]*x[1-9][0-9]*", given.size or size):
        sys.exit(f"wrap: --size {given.size}: should be width x height, as in 640x640")
    width, height = (int(side) for side in (given.size or size).split("x"))
    for path in (given.file, given.classes):
        if path is not None and not path.is_file():
            sys.exit(f"wrap: {path}: there is no such file")
    if given.file.read_bytes()[:1] not in (b"\x08", b"\x12"):
        sys.exit(f"wrap: {given.file}: is no ONNX file; one that was fetched without its content says so in its first line")
    head = dict(head)
    if given.joined_raw:
        head |= {"strides": [8, 16, 32, 64], "centre": 0.0, "activation": "sigmoid"}
    if given.strides:
        head["strides"] = [int(step) for step in given.strides.split(",")]
    names, words = classes(given)
    weights = beside(given.file, given.file.read_bytes())
    text = {"name": name, "version": "1", "family": given.family, "methods": ["detector"], "licence": given.licence,
            "provenance": given.provenance or given.file.name}
    tables = {
        "input": {"width": width, "height": height, **settings}, "limits": {"max_batch": 1},
        "scores": {"objectness": given.objectness, "match": given.match, "nms_iou": iou if given.nms_iou is None else given.nms_iou},
        "head": {"classes": names, "words": words, **head}}
    lines = [f"{key} = {toml(value)}" for key, value in text.items()]
    for table, entries in tables.items():
        lines += ["", f"[{table}]", *(f"{key} = {toml(value)}" for key, value in entries.items())]
    # The daemon tells by their names which weights are whose.
    copies = [("detector", given.file, given.file.name if weights else "detector.onnx")]
    copies += [("detector_data", path, path.name) for path in weights]
    for copy in copies:
        lines += listed(*copy)
    given.out.mkdir(parents=True)
    for _, path, name in copies:
        shutil.copyfile(path, given.out / name)
    (given.out / "model.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # The daemon runs as a user of its own, whatever the umask here keeps private.
    os.chmod(given.out, 0o755)
    for path in given.out.iterdir():
        os.chmod(path, 0o644)
    print(f"{given.out}: written; `groundd models info {given.out}` shows it")


if __name__ == "__main__":
    main()
