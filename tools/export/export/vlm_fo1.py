"""VLM-FO1: Qwen2.5-VL that is shown regions. From the checkpoint folder as published, without its code."""

from dataclasses import dataclass

import numpy as np
import torch
from safetensors import safe_open
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from . import fo1_vision
from .errors import Refused
from .expected import Expected
from .family import Graph, splice
from .heads import Measured, compare, prove
from .heads import Run
from .qwen2_5_vl import Qwen25VL, WindowTower

# Stands for a region in a prompt; the original's own mark.
PLACE = -300
# What a prompt can hold: index tokens go from 0 to 99.
REGIONS = 100
DAVIT = {
    "davit-base": {"dims": (128, 256, 512, 1024), "depths": (1, 1, 9, 1), "heads": (4, 8, 16, 32), "window": 12},
    "davit-large": {"dims": (256, 512, 1024, 2048), "depths": (1, 1, 9, 1), "heads": (8, 16, 32, 64), "window": 12},
}
# The second tower's picture where it is squashed: its processor's own (`img_cfg` of `davit/configs.py`), whatever
# `aux_image_size` says.
SQUASHED = 768
# (picture as rows x columns of patches, second tower's picture, regions) of the prompts it is checked with.
SHOWN = {"a region": ((8, 12), (75, 110), 1), "regions": ((6, 4), (64, 64), 7), "many regions": ((10, 8), (131, 90), 40)}
# In what order VLX-Seek shows regions, as its configuration has it and as model.toml does.
ORDERS = {"none": "none", "raster": "raster", "area_asc": "area-asc", "area_desc": "area-desc"}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass
class Told(Expected):
    """And what is told of every region, of a case with some."""

    regions: np.ndarray | None = None


class StatesTower(WindowTower):
    """The window tower, which also gives what its last whole-picture blocks have of every patch."""

    def __init__(self, vision, kept, projector):
        super().__init__(vision)
        self.kept, self.projector = set(kept), projector

    def deepen(self, i, x):
        return [x] if i in self.kept else []

    def merged(self, x):
        return self.projector(super().merged(x))


class Projector(nn.Sequential):
    """`linear`, `mlpNx_gelu` or `identity`, as the checkpoint's configuration names them."""

    @classmethod
    def of(cls, kind, before, after):
        if kind == "identity":
            return cls()
        depth = {"linear": 1, **{f"mlp{n}x_gelu": n for n in range(1, 5)}}.get(kind)
        if depth is None:
            raise Refused(f"config.json: the projector `{kind}` is not known; linear, mlpNx_gelu and identity are")
        layers = [nn.Linear(before, after)]
        for _ in range(1, depth):
            layers += [nn.GELU(), nn.Linear(after, after)]
        return cls(*layers)


def names(name):
    """The place in this model of a tensor of the checkpoint."""
    moved = (("model.vision_tower.image_tower.", "model.visual."), ("model.vision_tower_aux.image_tower.", "aux_tower."),
             ("model.object_vp_extractor.aux_region_norm", "regions.norms.aux_region_norm"),
             ("model.object_vp_extractor.vt_region_norm", "regions.norms.vt_region_norm"),
             ("model.object_vp_extractor.", "regions."), ("model.mm_projector_aux.", "regions.projector."),
             ("model.mm_projector.", "projector."), ("model.", "model.language_model."))
    for before, after in moved:
        if name.startswith(before):
            return after + name[len(before):]
    return name


def chosen(told, key, default, known):
    """What is known by the value of a key."""
    value = told.get(key, default)
    if value not in known:
        raise Refused(f"config.json: `{key}` is {value!r}; {' and '.join(map(repr, known))} are known here")
    return known[value]


def built(config, told):
    """The whole model of a configuration, its weights still to come."""
    def fixed(key, want, default):
        if told.get(key, default) != want:
            raise Refused(f"config.json: `{key}` is {told.get(key)!r}; only {want!r} is known here")

    fixed("mm_region_feature_combination", "concat", "concat")
    fixed("mm_pos_embedding_strategy", "bbox_based", "bbox_based")
    fixed("mm_apply_position_embedding", True, True)
    fixed("mm_use_vision_tower_region_feature", True, False)
    fixed("mm_use_vt_region_feature_only", False, False)
    kind = str(told.get("mm_vision_tower_aux", "")).split("/")[-1].removesuffix(".pth")
    davit = told.get("aux_vision_config") or DAVIT.get(kind)
    if davit is None:
        raise Refused(f"config.json: `mm_vision_tower_aux` is `{kind}`; {' and '.join(DAVIT)} are known")
    model = Qwen2_5_VLForConditionalGeneration(config)
    hidden, vision = config.text_config.hidden_size, config.vision_config
    model.projector = Projector.of(told.get("mm_projector_type", "linear"), told.get("mm_hidden_size", hidden), hidden)
    model.aux_tower = fo1_vision.Davit(davit["dims"], davit["depths"], davit["heads"], davit.get("groups", davit["heads"]),
                                       davit["window"])
    model.aux_size = chosen(told, "aux_image_aspect_ratio", "squash", {"squash": (SQUASHED, SQUASHED), "dynamic": None})
    states = len(vision.fullatt_block_indexes)
    levels = told.get("mm_use_simpleFPN_for_vt", False)
    out = told.get("fpn_channels", 512)
    width = 4 * out if levels else states * vision.hidden_size
    aux = sum(davit["dims"])
    fixed("mm_region_hidden_size", aux + width, aux + width)
    norms = None
    if told.get("mm_apply_region_layer_norm", False):
        norms = fo1_vision.tree(aux_region_norm=nn.LayerNorm(aux), vt_region_norm=nn.LayerNorm(width))
    model.regions = fo1_vision.Regions(
        vision.patch_size, vision.spatial_merge_size, told.get("mm_roi_output_size", 7),
        fo1_vision.pyramid(vision.hidden_size, out) if levels else None, norms,
        Projector.of(told.get("mm_projector_aux_type", "linear"), aux + width, hidden))
    kept = sorted(vision.fullatt_block_indexes)
    model.kept = kept[-1:] if levels else kept
    return model


class VlmFo1(Qwen25VL):
    name = "vlm-fo1"
    model_type = "omchat_qwen2_5_vl"
    hub_example = "omlab/VLM-FO1_Qwen2.5-VL-3B-v01"
    methods = ("retrieve",)
    # How the daemon asks: see `[regions]` of a manifest.
    shown_regions = {"prompt": REGIONS, "selection": "decode", "nms_iou": 0.8}
    tag = "<region{}>"

    def load(self, checkpoint):
        """Tensor by tensor, so that no more than one copy is held."""
        from .checkpoint import Source
        told = Source(checkpoint).config
        # Checkpoints name the numbers' form in either way; here all are float32, in the parts as well.
        unused = ("model_type", "dtype", "torch_dtype")
        config = Qwen2_5_VLConfig(**{key: value for key, value in told.items() if key not in unused})
        config._attn_implementation = "eager"
        for part in (config.text_config, config.vision_config):
            part._attn_implementation = "eager"
        model = built(config, told).float()
        wanted, seen = dict(model.named_parameters()), set()
        files = sorted(checkpoint.glob("*.safetensors"))
        if not files:
            raise Refused(f"{checkpoint}: has no *.safetensors; the folder should be laid out as {self.hub_example} is")
        for path in files:
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    own = names(name)
                    if own not in wanted:
                        # A projector of one layer is that layer itself where the checkpoint was made.
                        own = own.replace("projector.", "projector.0.", 1)
                    if own not in wanted or wanted[own].shape != tuple(file.get_slice(name).get_shape()):
                        raise Refused(f"{path}: `{name}` has no place, or one of another shape, in the model that config.json "
                                      "describes")
                    with torch.no_grad():
                        wanted[own].copy_(file.get_tensor(name))
                    seen.add(own)
        if told.get("tie_word_embeddings") and "lm_head.weight" not in seen:
            model.lm_head.weight = model.model.language_model.embed_tokens.weight
            seen.add("lm_head.weight")
        lost = sorted(set(wanted) - seen)
        if lost:
            raise Refused(f"{checkpoint}: {len(lost)} tensors are missing, the first is `{lost[0]}`; the folder should be "
                          f"laid out as {self.hub_example} is")
        model.told = told
        return model.eval().requires_grad_(False)

    def prepare(self, model, source):
        self.size = model.aux_size
        return super().prepare(model, source)

    def tower(self, model):
        return StatesTower(model.model.visual, model.kept, model.projector)

    def graphs(self, model):
        stages = [f"aux_features.{i}" for i in range(len(model.aux_tower.convs))]
        for graph in super().graphs(model):
            if graph.role == "vision_encoder":
                graph.outputs.append("region_states")
                graph.axes["region_states"] = {1: "patches"}
            yield graph
        height, width = self.size or (70, 100)
        pixels = torch.randn(1, 3, height, width)
        free = {} if self.size else {"pixel_values": {2: "height", 3: "width"}, **{
            name: {2: f"rows_{i}", 3: f"columns_{i}"} for i, name in enumerate(stages)}}
        yield Graph("aux_encoder", model.aux_tower, {"pixel_values": pixels}, stages, free)
        with torch.no_grad():
            cells = model.aux_tower(pixels)
        boxes = torch.tensor([[3.0, 2.0, 40.0, 50.0], [0.0, 0.0, 9.0, 8.0], [20.0, 10.0, 60.0, 30.0]])
        inputs = {"vt_boxes": boxes, "aux_boxes": boxes + 1, "image_grid_thw": torch.tensor([[1, 8, 10]]),
                  "region_states": torch.randn(len(model.kept), 80, model.config.vision_config.hidden_size),
                  **dict(zip(stages, cells))}
        axes = {"vt_boxes": {0: "regions"}, "aux_boxes": {0: "regions"}, "region_features": {0: "regions"},
                "region_states": {1: "patches"}, **{name: free[name] for name in stages if name in free}}
        yield Graph("region_encoder", model.regions, inputs, ["region_features"], axes)

    def cases(self, model, seed=1):
        random = np.random.default_rng(seed + 1)
        return super().cases(model, seed) + [
            self.shown_case(model, name, *rest, random) for name, rest in SHOWN.items()]

    def shown_case(self, model, name, grid, aux, count, random):
        """A prompt with a picture and regions, each a token and a place."""
        case = self.case(model, name, [[grid]], random)
        ordinary = [int(v) for v in random.integers(0, 50, count)]
        ids = case.ids[0].tolist() + [v for token in ordinary for v in (token, PLACE)] + [5, 6, 7]
        corners = random.random((count, 2, 2)).astype(np.float32)
        boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
        height, width = self.size or aux
        patch = model.config.vision_config.patch_size
        # A box without an area, and one over everything, are boxes too.
        boxes[0], boxes[-1] = (0.2, 0.2, 0.2, 0.2), (0, 0, 1, 1)
        images = {**case.images, "aux_pixels": random.standard_normal((1, 3, height, width)).astype(np.float32),
                  "vt_boxes": boxes * np.float32([grid[1], grid[0]] * 2) * patch,
                  "aux_boxes": boxes * np.float32([width, height] * 2)}
        case.ids, case.mask, case.images = np.array([ids]), np.ones((1, len(ids)), np.int64), images
        return self.placed(model, case)

    def states_of(self, model, case):
        """transformers' vision tower: features, and what its last whole-picture blocks have, in the order of patches."""
        vision, kept, found = model.model.visual, set(model.kept), []
        grid = torch.from_numpy(case.images["image_grid_thw"])
        hooks = [block.register_forward_hook(lambda _, __, out: found.append(out if torch.is_tensor(out) else out[0]))
                 for i, block in enumerate(vision.blocks) if i in kept]
        features = model.projector(vision(torch.from_numpy(case.images["pixel_values"]), grid_thw=grid))
        for hook in hooks:
            hook.remove()
        back = torch.argsort(vision.get_window_index(grid)[0])
        unit = vision.config.spatial_merge_size ** 2
        undone = [state.reshape(-1, unit, state.shape[-1])[back].reshape(state.shape) for state in found]
        return features, torch.stack(undone)

    def regions_of(self, model, case):
        features, states = self.states_of(model, case)
        if "aux_pixels" not in case.images:
            return features, None
        given = {name: torch.from_numpy(case.images[name]) for name in ("aux_pixels", "vt_boxes", "aux_boxes")}
        grid = torch.from_numpy(case.images["image_grid_thw"])
        cells = model.aux_tower(given["aux_pixels"])
        return features, model.regions(given["vt_boxes"], given["aux_boxes"], grid, states, *cells)

    @torch.no_grad()
    def reference(self, model, case, greedy=0, regions=None):
        """The language model as transformers has it, over embeddings that are put together here."""
        ids, mask = torch.from_numpy(case.ids), torch.from_numpy(case.mask)
        embeds = model.model.language_model.embed_tokens(ids.clamp(min=0))
        if case.images:
            features, told = self.regions_of(model, case)
            embeds[ids == self.image_token] = features
            if told is not None:
                embeds[ids == PLACE] = told
                regions = told.numpy()
        length, steps, tokens = ids.shape[1], [], []
        model.model.rope_deltas = torch.from_numpy(case.delta)[:, None]
        out = model(inputs_embeds=embeds, attention_mask=mask, position_ids=torch.from_numpy(case.positions),
                    use_cache=True, cache_position=torch.arange(length))
        prompt, cache, last = out.logits, out.past_key_values, out.logits[:, -1]
        for i in range(greedy or case.forced.shape[1]):
            token = last.argmax(-1, keepdim=True) if greedy else torch.from_numpy(case.forced[:, i:i + 1])
            mask = torch.cat((mask, torch.ones_like(token)), dim=1)
            at = (length + i + torch.from_numpy(case.delta))[None, :, None].expand(3, -1, 1)
            out = model(input_ids=token, attention_mask=mask, past_key_values=cache, position_ids=at, use_cache=True,
                        cache_position=torch.tensor([length + i]))
            last, cache = out.logits[:, -1], out.past_key_values
            steps.append(last)
            tokens.append(token)
        return Told(prompt.numpy(), torch.stack(steps, dim=1).numpy(), torch.cat(tokens, dim=1).numpy(),
                    case.mask.astype(bool), regions)

    def runner(self, folder):
        runner = super().runner(folder)
        more = type(runner.sessions)(folder, ("aux_encoder", "region_encoder"))
        runner.sessions.sessions |= more.sessions
        return runner

    def region_feeds(self, runner, case):
        seen = runner.sessions.run("vision_encoder", {
            "pixel_values": case.images["pixel_values"], self.grid_name: case.images["image_grid_thw"]})
        cells = runner.sessions.run("aux_encoder", {"pixel_values": case.images["aux_pixels"]})
        return {**{name: case.images[name] for name in ("vt_boxes", "aux_boxes", "image_grid_thw")},
                "region_states": seen["region_states"], **cells}

    def spliced(self, runner, case):
        embeds, _ = runner.embed(np.maximum(case.ids, 0)), {}
        if case.images:
            seen = runner.seen_by_tower(case)
            embeds = splice(embeds, case.ids == self.image_token, seen["image_features"])
            if "aux_pixels" in case.images:
                told = runner.sessions.run("region_encoder", self.region_feeds(runner, case))["region_features"]
                embeds = splice(embeds, case.ids == PLACE, told)
        return embeds, {}

    def verify(self, folder, cases, expected, exactness, dtype):
        """Qwen's checks, with regions in some prompts; and each region's embedding, and every input of what makes it."""
        report, runner, measured = super().verify(folder, cases, expected, exactness, dtype), self.runner(folder), Measured()
        for case in cases:
            if "aux_pixels" not in case.images:
                continue
            feeds = self.region_feeds(runner, case)
            got = runner.sessions.run("region_encoder", feeds)
            compare(got["region_features"], expected[case.name].regions, f"{case.name}: regions", measured)
            measured.outputs.add("region_features")
            # The grid cannot change alone.
            prove(runner.sessions, Run(case.name, "region_encoder", feeds, idle=("image_grid_thw",)), got, measured)
            pixels = {"pixel_values": case.images["aux_pixels"]}
            prove(runner.sessions, Run(case.name, "aux_encoder", pixels), runner.sessions.run("aux_encoder", pixels), measured)
        # Only the language model is quantised: what is told of regions does not depend on its form.
        allowed = {"fp32": 1e-4, "fp16": 2e-2}[dtype]
        if measured.error > allowed:
            raise Refused(f"the region encoder differs from torch: {measured.line()}; allowed is {allowed:g}")
        report.inputs += measured.inputs
        self.measured = measured
        return report

    def settings(self, model, source):
        sections = super().settings(model, source)
        # The processor is loaded with bounds of its own, whatever the folder says of them.
        unit = model.config.vision_config.patch_size * model.config.vision_config.spatial_merge_size
        sections["input"] |= {"min_pixels": max(56 * 56, unit * unit), "longest": 2048}
        del sections["input"]["coordinates"]
        sections["aux"] = {**({"width": self.size[1], "height": self.size[0]} if self.size else {}), **IMAGENET}
        sections["scores"] = {"objectness": 0.3, "match": 0.1, "nms_iou": 1.0}
        sections["regions"] = dict(self.shown_regions)
        sections["proposer"] = {"regions": 3 * REGIONS}
        for index in range(self.shown_regions["prompt"]):
            source.token(self.tag.format(index))
        return sections


class VlxSeek(VlmFo1):
    """VLX-Seek's prompt and answer over a model of VLM-FO1's build. The published checkpoints are of another: they cannot be
    exported here, so this is no family of the command line."""

    name = "vlx-seek"
    hub_example = "a folder of VLM-FO1's build"
    shown_regions = {"prompt": REGIONS, "selection": "decode", "nms_iou": 0.7}
    tag = "<obj{}>"

    def prepare(self, model, source):
        order = chosen(model.told, "mm_bbox_order_mode", "none", ORDERS)
        self.shown_regions = {**self.shown_regions, "order": order}
        return super().prepare(model, source)
