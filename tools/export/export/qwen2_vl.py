"""Qwen2-VL: plain attention over patches; the published names `pixel_values` and `grid_thw`."""

from transformers import Qwen2VLForConditionalGeneration

from .qwen import Qwen
from .qwen_vision import Tower


class Qwen2VL(Qwen):
    name = "qwen2-vl"
    model_type = "qwen2_vl"
    hub_example = "Qwen/Qwen2-VL-2B-Instruct"
    model_class = Qwen2VLForConditionalGeneration
    # Later families say image_grid_thw; the published exports of this one do not.
    grid_name = "grid_thw"
    coordinates = "thousandths"

    def tower(self, model):
        return Tower(model.model.visual)
