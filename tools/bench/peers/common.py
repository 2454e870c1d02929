"""What every compared program needs around it: arguments, the ONNX file, the broker, the number in the picture.

Each program gets the same streams and the same file, prepares pictures as its own users would, and publishes one message
a picture, so that the harness (`groundd bench`) sees all of them from the same place.
"""

import argparse
import json
import pathlib
import tomllib

import cv2
import numpy as np
import onnxruntime
import paho.mqtt.client as mqtt

BITS, SQUARE = 10, 16  # src/ingest/mark.rs
THRESHOLD = 0.15


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--onnx", required=True)
    parser.add_argument("--broker", required=True, help="HOST:PORT")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to ONNX Runtime")
    parser.add_argument("urls", nargs="+")
    return parser.parse_args()


def read_mark(picture):
    """The number that the server drew into a full-size BGR picture, or None."""
    middle, columns = SQUARE // 2, np.arange(2 * BITS) * SQUARE + SQUARE // 2
    if picture.shape[0] < SQUARE or picture.shape[1] <= columns[-1]:
        return None
    white = picture[middle, columns, 1] >= 128
    number = int((white[:BITS] * (1 << np.arange(BITS))).sum())
    return number if (white[:BITS] != white[BITS:]).all() else None


def usual_size(path):
    """The size of picture that a file of free size is usually given: that in the manifest beside it."""
    manifest = pathlib.Path(path).with_name("model.toml")
    if not manifest.is_file():
        raise SystemExit(f"{path} takes pictures of any size, and there is no model.toml beside it that says which")
    taken = tomllib.loads(manifest.read_text())["input"]
    return taken["width"], taken["height"]


class Model:
    """Any ONNX file with one picture as its input: NHWC bytes, or NCHW floats from 0 to 1."""

    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        declared = self.session.get_inputs()[0]
        self.name, self.bytes = declared.name, declared.type == "tensor(uint8)"
        height, width = declared.shape[1:3] if self.bytes else declared.shape[2:4]
        self.size = (width, height) if isinstance(width, int) and isinstance(height, int) else usual_size(path)
        self.outputs = [output.name for output in self.session.get_outputs()]

    def prepare(self, picture):
        """A BGR picture, letterboxed, as the file wants it, without the batch axis."""
        (width, height), (h, w) = self.size, picture.shape[:2]
        scale = min(width / w, height / h)
        inner = (round(w * scale), round(h * scale))
        small = cv2.resize(picture, inner, interpolation=cv2.INTER_LINEAR)
        if inner != self.size:
            top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
            small = cv2.copyMakeBorder(
                small, top, height - inner[1] - top, left, width - inner[0] - left, cv2.BORDER_CONSTANT
            )
        rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        return rgb if self.bytes else np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32) / 255

    def run(self, tensor):
        """The outputs of one prepared picture, by name."""
        return dict(zip(self.outputs, self.session.run(None, {self.name: tensor[None]})))

    def boxes(self, outputs):
        """Boxes above the threshold, where the file's outputs are known by name."""
        if "boxes" not in outputs or "objectness" not in outputs:
            return []
        sure = outputs["objectness"][0] >= THRESHOLD
        found = np.column_stack([outputs["boxes"][0][sure], outputs["objectness"][0][sure]])
        return np.round(found.astype(float), 4).tolist()


class Publisher:
    """One message a picture, QoS 0."""

    def __init__(self, broker):
        host, port = broker.rsplit(":", 1)
        version = getattr(mqtt, "CallbackAPIVersion", None)
        self.client = mqtt.Client(version.VERSION2) if version else mqtt.Client()
        self.client.connect(host, int(port))
        self.client.loop_start()

    def send(self, stream, mark, boxes):
        self.client.publish(f"bench/{stream}/detections", json.dumps({"mark": mark, "boxes": boxes}), qos=0)
