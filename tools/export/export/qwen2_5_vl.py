"""Qwen2.5-VL: most vision blocks attend within windows, a few over the whole picture."""

from transformers import Qwen2_5_VLForConditionalGeneration

from . import blocks
from .errors import Refused
from .qwen import Qwen
from .qwen_vision import Tower


class WindowTower(Tower):
    def __init__(self, vision):
        super().__init__(vision)
        config = vision.config
        self.whole = set(config.fullatt_block_indexes)
        self.side = config.window_size // config.spatial_merge_size // config.patch_size
        if self.side < 1:
            raise Refused("config.json: vision_config.window_size is smaller than one merged patch")

    def norm(self, layer, x):
        return blocks.rms_norm(x, layer.weight, layer.variance_epsilon)

    def windows(self, layout):
        return layout.windows(self.side)

    def windowed(self, i):
        return i not in self.whole

    def feed(self, mlp, x):
        return blocks.linear(mlp.down_proj, mlp.act_fn(blocks.linear(mlp.gate_proj, x)) * blocks.linear(mlp.up_proj, x))


class Qwen25VL(Qwen):
    name = "qwen2.5-vl"
    model_type = "qwen2_5_vl"
    hub_example = "Qwen/Qwen2.5-VL-3B-Instruct"
    model_class = Qwen2_5_VLForConditionalGeneration
    coordinates = "resized-pixels"

    def tower(self, model):
        return WindowTower(model.model.visual)

    def window(self, config):
        return {"window": config.vision_config.window_size}
