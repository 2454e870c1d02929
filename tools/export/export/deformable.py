"""Deformable DETR: a detector with classes of its own, or with one, as a proposer of anything (UPN's shape)."""

import contextlib

import numpy as np
import torch
from torch import nn
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

from .detection import Closed, Shortest, named, traceable
from .family import Graph
from .heads import Run


@contextlib.contextmanager
def whole(model):
    """Grids of whole numbers for the time of a trace. torch's exporter takes a linspace of traced length to doubles, and
    ONNX Runtime samples no picture at doubles."""
    def told(shapes):
        return [(int(height), int(width)) for height, width in shapes]

    base = model.model
    points, proposals = base.encoder.get_reference_points, base.gen_encoder_output_proposals
    base.encoder.get_reference_points = lambda shapes, ratios, device: points(told(shapes), ratios, device)
    base.gen_encoder_output_proposals = lambda seen, padding, shapes: proposals(seen, padding, told(shapes))
    try:
        yield
    finally:
        del base.encoder.get_reference_points, base.gen_encoder_output_proposals


class Masked(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, pixel_mask):
        with traceable(), whole(self.model):
            out = self.model(pixel_values=pixel_values, pixel_mask=pixel_mask)
        return out.logits, out.pred_boxes


class DeformableDetr(Shortest, Closed):
    name = "deformable-detr"
    model_type = "deformable_detr"
    hub_example = "SenseTime/deformable-detr"
    model_class = DeformableDetrForObjectDetection
    # As in Grounding DINO: boxes steer where the decoder looks next.
    allowed = exact = 2e-3

    def loading(self, checkpoint):
        """The checkpoint has the backbone's weights, which timm would fetch from elsewhere first."""
        config = DeformableDetrConfig.from_pretrained(checkpoint, local_files_only=True)
        config.use_pretrained_backbone = False
        return {"config": config}

    def prepare(self, model, source):
        self.measure(source)
        # Custom kernels are for CUDA, and no trace sees into them.
        model.config.disable_custom_kernels = True
        for module in model.modules():
            if hasattr(module, "disable_custom_kernels"):
                module.disable_custom_kernels = True
        return model

    def graphs(self, model):
        sample = self.picture(np.random.default_rng(3), (self.width - 5, self.height))
        inputs = {name: torch.from_numpy(value) for name, value in sample.items()}
        yield Graph("detector", Masked(model), inputs, ["logits", "pred_boxes"], {})

    def runs(self, model, random):
        for name, columns, rows in (("a picture", self.width, self.height),
                                    ("half a picture", self.width // 2, self.height),
                                    ("a low picture", self.width, self.height * 2 // 3)):
            yield Run(name, "detector", self.picture(random, (columns, rows)))

    def settings(self, model, source):
        names = named(model)
        # One class is every thing's: offered as UPN's reference offers them (`inference_wrapper.py` of VLM-FO1), the best
        # of near-copies alone. Several classes suppress nothing, as published.
        scores = {"objectness": 0.3, "match": 0.3, "nms_iou": 0.8} if len(names) == 1 else \
            {"objectness": 0.1, "match": 0.4, "nms_iou": 1.0}
        return {
            "input": {"fit": "shortest", "width": self.width, "height": self.height, "shortest": self.shortest,
                      "longest": self.longest},
            "limits": {"max_batch": 1, "boxes": 100},
            "scores": scores,
            "head": {"classes": names},
        }
