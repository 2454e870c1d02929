"""Ultralytics' multi-stream predict: its loader and its predict loop, with the ONNX file in the model's place."""

import os
import tempfile
from types import SimpleNamespace

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())

import torch  # noqa: E402
from ultralytics.engine.predictor import BasePredictor  # noqa: E402

from common import Model, Publisher, arguments, read_mark  # noqa: E402


class Predictor(BasePredictor):
    """The stock predictor but for the three steps that depend on the model."""

    def __init__(self, model, publisher):
        super().__init__(overrides={"verbose": False, "save": False, "batch": 1, "imgsz": model.size[0]})
        self.onnx, self.publisher = model, publisher

    def setup_model(self, model, verbose=True):
        self.device = torch.device("cpu")
        self.model = SimpleNamespace(format="onnx", stride=32, fp16=False, warmup=lambda **_: None, dynamic=False)

    def preprocess(self, pictures):
        self.tensors = [self.onnx.prepare(picture) for picture in pictures]
        return torch.empty(len(pictures), 3, *self.onnx.size[::-1], device="meta")

    def inference(self, _):
        return [self.onnx.run(tensor) for tensor in self.tensors]

    def postprocess(self, outputs, _, pictures):
        for stream, (output, picture) in enumerate(zip(outputs, pictures)):
            self.publisher.send(stream, read_mark(picture), self.onnx.boxes(output))
        return [SimpleNamespace(speed=None) for _ in pictures]


def main():
    args = arguments()
    predictor = Predictor(Model(args.onnx, args.threads), Publisher(args.broker))
    with tempfile.NamedTemporaryFile("w", suffix=".streams") as urls:
        urls.write("\n".join(args.urls))
        urls.flush()
        for _ in predictor(source=urls.name, stream=True):
            pass


main()
