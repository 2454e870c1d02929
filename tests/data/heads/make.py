"""Makes the tiny detectors beside this script, and what their references' post-processing makes of them.

    pip install numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93
    python tests/data/heads/make.py

Random weights behind the interfaces of published detectors: `yolox` (`yolox-rect` the same without a border), `nanodet` (a tensor a grid), `nanodet-plus` (one
tensor, raw scores, cells told from their corner), `picodet` (four grids, stretched RGB), `fastestdet` (one grid, channels
first), `rf-detr` (RF-DETR's own names, a class that is none) and `d-fine-deployed` (the post-processing is in the graph). `NAME/expected.json` holds, for every
picture and class, the boxes and scores that follow from the reference's pre- and post-processing: OpenCV's resize and
its suppression, the rest after the published code in numpy. `rt-detr`, `d-fine` and the families that read words are
made by tools/export.
"""

import hashlib
import json
import pathlib

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T, helper as h, numpy_helper

HERE = pathlib.Path(__file__).parent
CLASSES = ["person", "bicycle", "car", "traffic light", "dog"]
C, SIDE, BINS = len(CLASSES), 64, 8
SCORE, IOU = 0.3, 0.5
# Sizes whose scaling into 64 pixels is whole: references map boxes back by the factor asked for, not the one it got.
PICTURES = {"street": (128, 96), "tall": (80, 160)}


def picture(width, height, seed):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 9) * np.cos(y / 7)], axis=2)
    for _ in range(12):
        w, h = random.integers(8, 40, 2)
        left, top = random.integers(0, width - 8), random.integers(0, height - 8)
        base[top:top + h, left:left + w] = random.integers(0, 256, 3)
    return np.clip(base, 0, 255).astype(np.uint8)


class Net:
    """Average pooling to each grid, a 3x3 convolution, tanh, and a 1x1 convolution: small, and different everywhere."""

    def __init__(self, name, seed, picture="images"):
        self.name, self.nodes, self.constants, self.picture = name, [], {}, picture
        self.random = np.random.default_rng(seed)
        self.inputs = [h.make_tensor_value_info(picture, T.FLOAT, [1, 3, SIDE, SIDE])]

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(h.make_node(kind, inputs.split(), [output], **attributes))
        return output

    def constant(self, name, value, dtype=np.float32):
        self.constants[name] = np.asarray(value, dtype)
        return name

    def grid(self, stride, width, spread, bias=0.0, scale=1 / 128):
        """[1, cells, width]"""
        tag, hidden = f"g{stride}w{width}", 6
        noise = self.random.standard_normal
        self.constant(f"{tag}a", noise((hidden, 3, 3, 3)) * scale / 2)
        self.constant(f"{tag}b", noise((width, hidden, 1, 1)) * spread)
        self.constant(f"{tag}c", noise(width) * spread / 2 + bias)
        self.constant(f"{tag}s", [1, width, -1], np.int64)
        self.op("AveragePool", self.picture, f"{tag}1", kernel_shape=[stride] * 2, strides=[stride] * 2)
        self.op("Conv", f"{tag}1 {tag}a", f"{tag}2", pads=[1] * 4)
        self.op("Tanh", f"{tag}2", f"{tag}3")
        self.op("Conv", f"{tag}3 {tag}b {tag}c", f"{tag}4")
        self.op("Reshape", f"{tag}4 {tag}s", f"{tag}5")
        return self.op("Transpose", f"{tag}5", f"{tag}6", perm=[0, 2, 1])

    def save(self, outputs):
        initialisers = [numpy_helper.from_array(value, key) for key, value in self.constants.items()]
        infos = [h.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs]
        graph = h.make_graph(self.nodes, self.name, self.inputs, infos, initialisers)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        folder = HERE / self.name
        folder.mkdir(exist_ok=True)
        (folder / "detector.onnx").write_bytes(model.SerializeToString())
        return folder


def manifest(folder, family, settings, head, classes=CLASSES):
    data = (folder / "detector.onnx").read_bytes()
    lines = [f'name = "tiny-{folder.name}"', 'version = "1"', f'family = "{family}"', 'methods = ["detector"]',
             'licence = "Apache-2.0"', 'provenance = "random weights: for tests only"', "", "[input]",
             f"width = {SIDE}", f"height = {SIDE}", *settings, "", "[limits]", "max_batch = 1", "", "[scores]",
             "objectness = 0.25", f"match = {SCORE}", f"nms_iou = {1.0 if 'detr' in family or 'fine' in family else IOU}",
             "", "[head]", f"classes = {json.dumps(classes)}", 'words = { people = "person", bike = "bicycle" }', *head,
             "", "[[files]]", 'role = "detector"', 'path = "detector.onnx"', f"bytes = {len(data)}",
             f'sha256 = "{hashlib.sha256(data).hexdigest()}"']
    (folder / "model.toml").write_text("\n".join(lines) + "\n")


def resizable(file):
    """The graph for pictures of any size: it is the file that names one."""
    model = onnx.load(file)
    for axis, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width")):
        axis.dim_param = name
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "rows"
    return model.SerializeToString()


def expected(folder, prepare, read, classes=CLASSES, graph=None, pictures=PICTURES):
    """`prepare` gives the tensor and how many picture pixels an image pixel is, by axis; `read` boxes, scores, classes."""
    graph = graph or (folder / "detector.onnx").read_bytes()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    told = []
    for name in pictures:
        bgr = cv2.imread(str(HERE / f"{name}.png"))
        tensor, (sx, sy) = prepare(bgr)
        feeds = {session.get_inputs()[0].name: tensor[None].astype(np.float32)}
        if len(session.get_inputs()) > 1:
            feeds["orig_target_sizes"] = np.array([[SIDE, SIDE]])
        outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))
        boxes, scores, labels = read(outputs)
        height, width = bgr.shape[:2]
        for label, word in enumerate(classes):
            if not word:
                continue
            found = []
            for i in np.nonzero(labels == label)[0]:
                x1, y1, x2, y2 = boxes[i] * [sx, sy, sx, sy]
                x1, x2 = np.clip([x1, x2], 0, width)
                y1, y2 = np.clip([y1, y2], 0, height)
                if x1 < x2 and y1 < y2:
                    found.append([round(float(v), 4) for v in (x1, y1, x2, y2, scores[i])])
            told.append({"picture": name, "text": word, "boxes": sorted(found, key=lambda b: -b[4])})
    (folder / "expected.json").write_text(json.dumps(told, separators=(",", ":")) + "\n")
    print(folder.name, sum(len(t["boxes"]) for t in told), "boxes;",
          sum(path.stat().st_size for path in folder.iterdir()), "bytes")


def suppressed(boxes, scores, labels):
    """OpenCV's suppression, class by class."""
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    keep = cv2.dnn.NMSBoxesBatched(xywh.tolist(), scores.tolist(), labels.tolist(), SCORE, IOU)
    return boxes[keep], scores[keep], labels[keep]


def cells(strides, centre=0.0, size=(SIDE, SIDE)):
    out = []
    for stride in strides:
        y, x = np.mgrid[0:size[1] // stride, 0:size[0] // stride]
        out.append(np.stack([(x + centre).ravel(), (y + centre).ravel(), np.full(x.size, stride)], axis=1))
    return np.concatenate(out).astype(np.float32)


def corner(bgr, step=SIDE):
    ratio = min(SIDE / bgr.shape[0], SIDE / bgr.shape[1])
    size = int(bgr.shape[1] * ratio), int(bgr.shape[0] * ratio)
    width, height = (min(SIDE, -(-(side + step // 2) // step) * step) for side in size)
    image = np.full((height, width, 3), 114, np.uint8)
    image[:size[1], :size[0]] = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
    return image.transpose(2, 0, 1).astype(np.float32), (1 / ratio, 1 / ratio)


def stretched(bgr, rgb, scale, mean, std):
    image = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    image = (image[:, :, ::-1] if rgb else image).astype(np.float32) * np.float32(scale)
    return (((image - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1),
            (bgr.shape[1] / SIDE, bgr.shape[0] / SIDE))


def yolox(name, rect):
    strides, net = (8, 16, 32), Net(name, 1)
    for stride in strides:
        net.grid(stride, 5 + C, 1.2)
        net.op("Split", f"g{stride}w{5 + C}6 split", f"raw{stride}")
        net.nodes[-1].output.append(f"sure{stride}")
        net.nodes[-1].attribute.append(h.make_attribute("axis", 2))
        net.op("Sigmoid", f"sure{stride}", f"score{stride}")
        net.op("Concat", f"raw{stride} score{stride}", f"row{stride}", axis=2)
    net.constant("split", [4, 1 + C], np.int64)
    net.op("Concat", " ".join(f"row{s}" for s in strides), "output", axis=1)
    folder = net.save([("output", T.FLOAT, [1, len(cells(strides)), 5 + C])])
    manifest(folder, "yolox", ['fit = "corner"', "pad = 114", 'resample = "linear"', 'channels = "bgr"', "scale = 1.0",
                               "mean = [0.0, 0.0, 0.0]", "std = [1.0, 1.0, 1.0]"] + ["rect = true"] * rect,
             ["strides = [8, 16, 32]"])
    sizes = []

    def prepare(bgr):
        tensor, factors = corner(bgr, 32 if rect else SIDE)
        sizes.append(tensor.shape[:0:-1])
        return tensor, factors

    def read(outputs):
        rows, cell = outputs["output"][0], cells(strides, size=sizes[-1])
        centre = (rows[:, :2] + cell[:, :2]) * cell[:, 2:]
        size = np.exp(rows[:, 2:4]) * cell[:, 2:]
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        scores = rows[:, 4:5] * rows[:, 5:]
        return suppressed(boxes, scores.max(1), scores.argmax(1))

    if rect:
        expected(folder, prepare, read, graph=resizable(folder / "detector.onnx"), pictures=("street", "narrow", "strip"))
    else:
        expected(folder, prepare, read)


def bins(name, family, strides, joined, centre, raw, prepare, settings, names=None):
    net = Net(name, 2 + len(name), "input.1")
    parts, outputs = [], []
    for at, stride in enumerate(strides):
        n, scale = (-(-SIDE // stride)) ** 2, 1.0
        scores = net.grid(stride, C, 1.5, -0.5, scale)
        places = net.grid(stride, 4 * BINS, 2.0, 0.0, scale)
        if joined:
            parts.append(net.op("Concat", f"{scores} {places}", f"both{stride}", axis=2))
            continue
        own = names[at] if names else (f"cls_pred_stride_{stride}", f"dis_pred_stride_{stride}")
        net.op("Sigmoid", scores, own[0])
        net.op("Identity", places, own[1])
        outputs.append(((own[0], T.FLOAT, [1, n, C]), (own[1], T.FLOAT, [1, n, 4 * BINS])))
    if joined:
        net.op("Concat", " ".join(parts), "output", axis=1)
        outputs = [("output", T.FLOAT, [1, len(cells(strides)), C + 4 * BINS])]
    else:
        outputs = [o for pair in zip(*outputs) for o in pair]
    folder = net.save(outputs)
    head = [f"strides = {list(strides)}", f"centre = {centre}"] + (['activation = "sigmoid"'] if raw else [])
    manifest(folder, family, settings, head)

    def read(outputs):
        if joined:
            both = outputs["output"][0]
            scores, places = 1 / (1 + np.exp(-both[:, :C])), both[:, C:]
        else:
            pick = [v[0] for v in outputs.values()]
            scores = np.concatenate([v for v in pick if v.shape[1] == C])
            places = np.concatenate([v for v in pick if v.shape[1] == 4 * BINS])
        share = np.exp(places.reshape(-1, 4, BINS))
        distance = (share / share.sum(2, keepdims=True)) @ np.arange(BINS)
        cell = cells(strides, centre)
        distance, middle = distance * cell[:, 2:], cell[:, :2] * cell[:, 2:]
        boxes = np.concatenate([middle - distance[:, :2], middle + distance[:, 2:]], axis=1)
        boxes, labels = np.repeat(boxes, C, axis=0), np.tile(np.arange(C), len(boxes))
        return suppressed(boxes, scores.ravel(), labels)

    expected(folder, prepare, read)


def fastestdet():
    """Objectness and shares of classes come activated, the box does not."""
    stride, net = 16, Net("fastestdet", 41)
    n = SIDE // stride
    net.grid(stride, 5 + C, 1.6, 0.0, 1.0)
    net.constant("split", [1, 4, C], np.int64), net.constant("square", [1, 5 + C, n, n], np.int64)
    net.nodes.append(h.make_node("Split", [f"g{stride}w{5 + C}6", "split"], ["sure", "box", "kind"], axis=2))
    net.op("Sigmoid", "sure", "objectness")
    net.op("Softmax", "kind", "shares", axis=2)
    net.op("Concat", "objectness box shares", "rows", axis=2)
    net.op("Transpose", "rows", "channels", perm=[0, 2, 1])
    net.op("Reshape", "channels square", "output")
    folder = net.save([("output", T.FLOAT, [1, 5 + C, n, n])])
    settings = ['fit = "stretch"', 'resample = "linear"', 'channels = "bgr"', "scale = 0.00392156862745098",
                "mean = [0.0, 0.0, 0.0]", "std = [1.0, 1.0, 1.0]"]
    manifest(folder, "fastestdet", settings, ["strides = [16]"])

    def read(outputs):
        told = outputs["output"][0].reshape(5 + C, -1).T
        cell = cells((stride,))[:, :2]
        centre, size = (np.tanh(told[:, 1:3]) + cell) / n * SIDE, SIDE / (1 + np.exp(-told[:, 3:5]))
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        return suppressed(boxes, told[:, 0] ** 0.6 * told[:, 5:].max(1) ** 0.4, told[:, 5:].argmax(1))

    expected(folder, lambda bgr: stretched(bgr, False, 1 / 255, [0, 0, 0], [1, 1, 1]), read)


def rf_detr():
    """90 COCO ids in the published one; here one of the places stands for nothing, too."""
    classes, queries = ["", *CLASSES], SIDE // 16 * SIDE // 16
    net = Net("rf-detr", 21, "input")
    net.op("Identity", net.grid(16, C + 1, 1.5, -0.5, 1.0), "labels")
    net.op("Sigmoid", net.grid(16, 4, 1.5, 0.0, 1.0), "dets")
    folder = net.save([("dets", T.FLOAT, [1, queries, 4]), ("labels", T.FLOAT, [1, queries, C + 1])])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    settings = ['fit = "stretch"', 'resample = "linear"', "scale = 0.00392156862745098", f"mean = {mean}", f"std = {std}"]
    manifest(folder, "rf-detr", settings, [], classes)

    def read(outputs):
        prob = (1 / (1 + np.exp(-outputs["labels"][0]))).ravel()
        best = np.argsort(-prob, kind="stable")[:queries]
        best = best[prob[best] >= SCORE]
        cx, cy, w, hh = outputs["dets"][0][best // (C + 1)].T * SIDE
        return np.stack([cx - w / 2, cy - hh / 2, cx + w / 2, cy + hh / 2], axis=1), prob[best], best % (C + 1)

    expected(folder, lambda bgr: stretched(bgr, True, 1 / 255, mean, std), read, classes)


def d_fine():
    """The deployed form of RT-DETR and D-FINE: labels, boxes and scores come out, in pixels of `orig_target_sizes`."""
    queries, net = 12, Net("d-fine-deployed", 22)
    net.inputs.append(h.make_tensor_value_info("orig_target_sizes", T.INT64, [1, 2]))
    net.op("Sigmoid", net.grid(16, C, 1.5, -0.5, 1.0), "prob")
    net.op("Sigmoid", net.grid(16, 4, 1.5, 0.0, 1.0), "places")
    net.constant("flat", [1, -1], np.int64), net.constant("count", [queries], np.int64)
    net.constant("classes", C, np.int64), net.constant("two", 2.0), net.constant("split", [2, 2], np.int64)
    net.op("Reshape", "prob flat", "pairs")
    net.nodes.append(h.make_node("TopK", ["pairs", "count"], ["scores", "best"]))
    net.op("Mod", "best classes", "labels")
    net.op("Div", "best classes", "query")
    net.constant("axis", [2], np.int64), net.constant("wide", [1, 1, 4], np.int64)
    net.op("Unsqueeze", "query axis", "query3")
    net.op("Expand", "query3 wide", "query4")
    net.op("GatherElements", "places query4", "chosen", axis=1)
    net.nodes.append(h.make_node("Split", ["chosen", "split"], ["middle", "size"], axis=2))
    net.op("Div", "size two", "half")
    net.op("Sub", "middle half", "low")
    net.op("Add", "middle half", "high")
    net.op("Concat", "low high", "corners", axis=2)
    net.op("Cast", "orig_target_sizes", "pixels", to=T.FLOAT)
    net.op("Concat", "pixels pixels", "sides", axis=1)
    net.op("Mul", "corners sides", "boxes")
    folder = net.save([("labels", T.INT64, [1, queries]), ("boxes", T.FLOAT, [1, queries, 4]),
                       ("scores", T.FLOAT, [1, queries])])
    settings = ['fit = "stretch"', 'resample = "linear"', "scale = 0.00392156862745098", "mean = [0.0, 0.0, 0.0]",
                "std = [1.0, 1.0, 1.0]"]
    manifest(folder, "d-fine", settings, [])

    def read(outputs):
        keep = outputs["scores"][0] >= SCORE
        return outputs["boxes"][0][keep], outputs["scores"][0][keep], outputs["labels"][0][keep]

    expected(folder, lambda bgr: stretched(bgr, True, 1 / 255, [0, 0, 0], [1, 1, 1]), read)


def main():
    cv2.setNumThreads(1)
    for seed, (name, size) in enumerate([*PICTURES.items(), ("narrow", (40, 160)), ("strip", (160, 40))]):
        cv2.imwrite(str(HERE / f"{name}.png"), picture(*size, seed), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    yolox("yolox", False)
    yolox("yolox-rect", True)
    mean, std = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
    nano = ['fit = "stretch"', 'resample = "linear"', 'channels = "bgr"', "scale = 1.0", f"mean = {mean}", f"std = {std}"]
    prepare = lambda bgr: stretched(bgr, False, 1.0, mean, std)
    bins("nanodet", "nanodet", (8, 16, 32), False, 0.5, False, prepare, nano)
    bins("nanodet-plus", "nanodet", (8, 16, 32, 64), True, 0.0, True, prepare, nano)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    pico = ['fit = "stretch"', 'resample = "linear"', "scale = 0.00392156862745098", f"mean = {mean}", f"std = {std}"]
    names = [(f"save_infer_model/scale_{i}.tmp_1", f"save_infer_model/scale_{i + 4}.tmp_1") for i in range(4)]
    bins("picodet", "picodet", (8, 16, 32, 64), False, 0.5, False,
         lambda bgr: stretched(bgr, True, 1 / 255, mean, std), pico, names)
    fastestdet()
    rf_detr()
    d_fine()


if __name__ == "__main__":
    main()
