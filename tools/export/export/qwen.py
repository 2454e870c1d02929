"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: patches, three-row positions, the decoder, cases to check them with."""

import numpy as np
import torch

from . import decoder
from .errors import Refused
from .family import BATCH, Family, Graph, forced_tokens, padded, splice

# (pictures as rows x columns of patches) a prompt. Odd windows, whole windows, one-token pictures, several pictures.
PROMPTS = {
    "one": [[(8, 12)]],
    "whole-windows": [[(16, 16)]],
    "several": [[(2, 2), (6, 22), (10, 4)]],
    "padded-batch": [[(4, 6)], [(18, 2), (6, 8)]],
    "text": [[]],
}
# A streamed picture should cost at most this many tokens, whatever the checkpoint was trained for.
STREAM_TOKENS = 1280


class Qwen(Family):
    methods = ("coords", "zoom")
    grid_name = "image_grid_thw"
    interleaved = False
    coordinates = ""

    @property
    def shown(self):
        return {"pixel_values": "pixel_values", self.grid_name: "image_grid_thw"}

    def tower(self, model):
        raise NotImplementedError

    def deepstack(self, model):
        return 0

    def window(self, config):
        """The side of the vision tower's windows in pixels, where it has any."""
        return {}

    def graphs(self, model):
        config, text = model.config, model.model.language_model
        if "sliding_attention" in (getattr(text.config, "layer_types", None) or []):
            raise Refused("config.json: sliding-window attention in the language model is not supported; "
                          "set use_sliding_window to false if the checkpoint works without")
        sections = text.config.rope_scaling["mrope_section"]
        depth, hidden, layers = self.deepstack(model), text.config.hidden_size, text.config.num_hidden_layers
        body = decoder.Decoder(text, model.lm_head, decoder.rotary_rows(sections, self.interleaved), depth)
        patch = config.vision_config
        width = 3 * patch.temporal_patch_size * patch.patch_size ** 2
        grid = torch.tensor([[1, 4, 6], [1, 10, 8]])
        outputs = ["image_features"] + ["deepstack_features"] * bool(depth)
        axes = {"pixel_values": {0: "patches"}, self.grid_name: {0: "images"}, "image_features": {0: "image_tokens"}}
        if depth:
            axes["deepstack_features"] = {1: "image_tokens"}
        pixels = {"pixel_values": torch.randn(104, width), self.grid_name: grid}
        yield Graph("vision_encoder", self.tower(model), pixels, outputs, axes)
        yield decoder.embed_graph(text.embed_tokens)
        inputs, outputs, axes = decoder.ports(body, layers, hidden, torch.randint(0, 9, (3, 2, 3)), "position_ids")
        if depth:
            names = list(inputs)
            deep = {"deepstack_embeds": torch.randn(depth, 2, 3, hidden)}
            inputs = {**{n: inputs[n] for n in names[:4]}, **deep, **{n: inputs[n] for n in names[4:]}}
            axes["deepstack_embeds"] = {1: "batch", 2: "sequence"}
        yield Graph("decoder_model_merged", body, inputs, outputs, axes)

    def cases(self, model, seed=1):
        random = np.random.default_rng(seed)
        return [self.case(model, name, rows, random) for name, rows in PROMPTS.items()]

    def case(self, model, name, rows, random):
        config = model.config
        ordinary = min(getattr(config, key) for key in ("image_token_id", "video_token_id", "vision_start_token_id"))
        ordinary = min(ordinary, config.vision_end_token_id, 50_000)
        merge = config.vision_config.spatial_merge_size ** 2
        prompts, grids = [], []
        for pictures in rows:
            ids = list(random.integers(0, ordinary, random.integers(3, 7)))
            for high, wide in pictures:
                ids += [config.vision_start_token_id, *[config.image_token_id] * (high * wide // merge)]
                ids += [config.vision_end_token_id, *random.integers(0, ordinary, random.integers(1, 5))]
                grids.append((1, high, wide))
            prompts.append(ids)
        images = {}
        if grids:
            patch = config.vision_config
            width = 3 * patch.temporal_patch_size * patch.patch_size ** 2
            count = sum(t * h * w for t, h, w in grids)
            images = {"pixel_values": random.standard_normal((count, width)).astype(np.float32),
                      "image_grid_thw": np.array(grids, np.int64)}
        return self.placed(model, padded(name, prompts, forced_tokens(random, ordinary, len(prompts)), images))

    def placed(self, model, case):
        """Fills in where each token stands, in time, rows and columns; transformers computes it."""
        grid = case.images.get("image_grid_thw")
        positions, delta = model.model.get_rope_index(
            input_ids=torch.from_numpy(case.ids), attention_mask=torch.from_numpy(case.mask),
            image_grid_thw=None if grid is None else torch.from_numpy(grid))
        case.positions, case.delta = positions.numpy(), delta.numpy().reshape(-1)
        return case

    def spliced(self, runner, case):
        embeds, depth = runner.embed(case.ids), runner.ports.get("deepstack_embeds")
        at = case.ids == self.image_token
        deep = None if depth is None else np.zeros((depth.shape[0], *embeds.shape), np.float32)
        if case.images:
            seen = runner.sessions.run("vision_encoder", {
                "pixel_values": case.images["pixel_values"], self.grid_name: case.images["image_grid_thw"]})
            embeds = splice(embeds, at, seen["image_features"])
            if deep is not None:
                deep = np.stack([splice(d, at, f) for d, f in zip(deep, seen["deepstack_features"])])
        return embeds, {} if deep is None else {"deepstack_embeds": deep}

    def step_extra(self, runner, batch, length):
        at = (runner.past + runner.case.delta)[:, None] + np.arange(length)
        extra = {"position_ids": np.broadcast_to(at, (3, batch, length))}
        depth = runner.ports.get("deepstack_embeds")
        if depth is not None:
            extra["deepstack_embeds"] = np.zeros((depth.shape[0], batch, length, depth.shape[3]), np.float32)
        return extra

    def prepare(self, model, source):
        """Remembers what the runner needs once the model is gone."""
        merge = model.config.vision_config.spatial_merge_size
        if merge != 2:
            raise Refused(f"{source.folder / 'config.json'}: spatial_merge_size is {merge}; every published checkpoint "
                          "has 2, and nothing else was ever checked")
        self.image_token = model.config.image_token_id
        return model

    def changes(self, runner, feeds, random):
        """Further decoder inputs to change, one at a time."""
        for row, name in enumerate(("time", "row", "column")):
            moved = np.array(feeds["position_ids"])
            moved[row] += 3
            yield "position_ids", moved, f"the {name} of `position_ids`"
        hidden = np.array(feeds["attention_mask"])
        hidden[:, -2] = 0
        yield "attention_mask", hidden, "`attention_mask`"
        for i in range(len(feeds.get("deepstack_embeds", ()))):
            deep = np.array(feeds["deepstack_embeds"])
            deep[i] += 1
            yield "deepstack_embeds", deep, f"layer {i} of `deepstack_embeds`"

    def vision_changes(self, case):
        pixels, grid = case.images["pixel_values"], case.images["image_grid_thw"]
        feeds = {"pixel_values": pixels, self.grid_name: grid}
        start = 0
        for i, (frames, rows, columns) in enumerate(grid):
            changed = pixels.copy()
            changed[start] += 1
            start += frames * rows * columns
            yield f"a patch of picture {i}", feeds, {**feeds, "pixel_values": changed}
        turned = grid[:, [0, 2, 1]]
        if not np.array_equal(turned, grid):
            yield f"`{self.grid_name}`", feeds, {**feeds, self.grid_name: turned}

    def impossible(self, case):
        pixels, grid = case.images["pixel_values"], case.images["image_grid_thw"]
        for what, rows in (("fewer patches than the grid has", pixels[:-4]),
                           ("more patches than the grid has", np.concatenate([pixels, pixels[:4]]))):
            yield what, {"pixel_values": rows, self.grid_name: grid}

    def settings(self, model, source):
        """This family's part of model.toml."""
        config, text, picture = model.config, model.config.text_config, source.preprocessor
        unit = config.vision_config.patch_size * config.vision_config.spatial_merge_size
        size = picture.get("size") or {}
        least = picture.get("min_pixels") or size.get("shortest_edge") or 4 * unit * unit
        most = picture.get("max_pixels") or size.get("longest_edge") or STREAM_TOKENS * unit * unit
        most = min(most, STREAM_TOKENS * unit * unit)
        return {
            "input": {
                "fit": "patches", "patch": config.vision_config.patch_size,
                "merge": config.vision_config.spatial_merge_size,
                "temporal_patch": config.vision_config.temporal_patch_size, **self.window(config),
                "min_pixels": least, "max_pixels": most,
                **source.normalisation(), "coordinates": self.coordinates,
            },
            "limits": {"context": text.max_position_embeddings, "image_tokens": most // (unit * unit), "max_batch": BATCH},
            "decoder": {
                "layers": text.num_hidden_layers, "kv_heads": text.num_key_value_heads,
                "head_dim": getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
                "hidden": text.hidden_size, "vocabulary": text.vocab_size, "positions": "mrope",
                "deepstack": self.deepstack(model),
            },
            "tokens": {
                "image": config.image_token_id, "vision_start": config.vision_start_token_id,
                "vision_end": config.vision_end_token_id,
                **source.named_tokens({
                    "turn_start": "<|im_start|>", "turn_end": "<|im_end|>", "ref_start": "<|object_ref_start|>",
                    "ref_end": "<|object_ref_end|>", "box_start": "<|box_start|>", "box_end": "<|box_end|>"}),
            },
        }
