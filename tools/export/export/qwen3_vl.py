"""Qwen3-VL: learned positions stretched over the picture, and features of earlier blocks added inside the decoder."""

from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from . import blocks
from .qwen import Qwen
from .qwen_vision import Tower


def stretched(at, count, side):
    """Where position `at` of `count` falls on a table of `side`: the two neighbours and the weight of the second."""
    where = at.float() * (side - 1) / (count - 1).clamp(min=1).float()
    below = where.floor().clamp(max=side - 1)
    return below.long(), (below + 1).clamp(max=side - 1).long(), where - below


class DeepTower(Tower):
    def __init__(self, vision):
        super().__init__(vision)
        self.side = vision.num_grid_per_side
        self.depths = list(vision.deepstack_visual_indexes)

    def embed(self, pixel_values, layout):
        top, bottom, down = stretched(layout.row, layout.rows, self.side)
        left, right, across = stretched(layout.column, layout.columns, self.side)
        down, across = down[:, None], across[:, None]

        def corner(row, column):
            return nn.functional.embedding(row * self.side + column, self.vision.pos_embed.weight).float()

        place = (1 - down) * (1 - across) * corner(top, left) + (1 - down) * across * corner(top, right)
        place = place + down * (1 - across) * corner(bottom, left) + down * across * corner(bottom, right)
        return blocks.patches(self.vision.patch_embed.proj, pixel_values) + place

    def feed(self, mlp, x):
        return blocks.linear(mlp.linear_fc2, mlp.act_fn(blocks.linear(mlp.linear_fc1, x)))

    def merge_with(self, merger, x):
        if merger.use_postshuffle_norm:
            x = blocks.layer_norm(merger.norm, x.reshape(-1, merger.hidden_size))
        else:
            x = blocks.layer_norm(merger.norm, x).reshape(-1, merger.hidden_size)
        return blocks.linear(merger.linear_fc2, merger.act_fn(blocks.linear(merger.linear_fc1, x))).float()

    def merged(self, x):
        return self.merge_with(self.vision.merger, x)

    def deepen(self, i, x):
        if i not in self.depths:
            return []
        return [self.merge_with(self.vision.deepstack_merger_list[self.depths.index(i)], x)]


class Qwen3VL(Qwen):
    name = "qwen3-vl"
    model_type = "qwen3_vl"
    hub_example = "Qwen/Qwen3-VL-2B-Instruct"
    model_class = Qwen3VLForConditionalGeneration
    coordinates = "thousandths"
    interleaved = True

    def tower(self, model):
        return DeepTower(model.model.visual)

    def deepstack(self, model):
        return len(model.config.vision_config.deepstack_visual_indexes)
