"""Writes search.json: what the original ZoomEye does, for the searches of src/ground/zoom to be held against.

    git clone https://github.com/om-ai-lab/ZoomEye && git -C ZoomEye checkout 6762d79
    pip install numpy pillow && python tests/data/zoom/make.py ZoomEye

The original's own search runs, without its models: a scripted one says how sure it is of a view, by a hash of the view
and of what it is asked. The same hash is in the test.
"""

import json
import pathlib
import random
import sys
import types
import unittest.mock

HERE = pathlib.Path(__file__).parent
KINDS = {"existence": 0, "latent": 1, "answering": 2}
MASK = (1 << 64) - 1


def said(area, kind, salt, grid, gloom):
    """From -1 to 1 in `grid` steps, of which few make many equals; `gloom` makes for long searches."""
    state = salt
    for value in (*area, KINDS[kind]):
        state = (state ^ value) * 0x9E3779B97F4A7C15 & MASK
        state ^= state >> 29
    return max(-1, (state >> 20) % (grid + 1) * 2 / grid - 1 - gloom)


def original(checkout):
    """The original's modules, with what they import and a search does not need replaced by nothing."""
    for name in ("torch", "torch.nn", "transformers", "spacy", "llava", "llava.model", "llava.model.language_model",
                 "llava.model.language_model.llava_qwen", "llava.model.language_model.llava_llama", "llava.utils",
                 "llava.constants", "llava.conversation", "llava.mm_utils", "torchvision", "torchvision.transforms",
                 "torchvision.transforms.functional", "ZoomEye.zoom_model_internvl", "ZoomEye.zoom_model_qwenvl"):
        sys.modules[name] = unittest.mock.MagicMock()
    sys.path.insert(0, str(checkout))
    from ZoomEye import tree, utils, zoom_eye, zoom_model

    return tree, utils, zoom_eye, zoom_model


def picture_tree(tree, size, patch, split):
    """The original's tree of a picture that is not there."""
    made = object.__new__(tree.ImageTree)
    made.patch_size, made.max_depth = patch, 0
    made.split_func = {4: tree.split_4_subpatches, 9: tree.split_8or9_subpatches, 16: tree.split_16_subpatches}[split]
    made.root = tree.Node(tree.ZoomState(None, [0, 0, *size]))
    made._build()
    return made


class Scripted:
    def __init__(self, zoom_model, dice, bias):
        self.dice, self.bias_value, self.looked = dice, bias, []
        self.weight = zoom_model.ZoomModel.get_confidence_weight

    def get_confidence_value(self, node, image_pil, confidence_type, input_ele, **_):
        if confidence_type == "answering":
            self.looked.append(list(node.state.bbox))
        return said(node.state.bbox, confidence_type, *self.dice)

    def get_confidence_weight(self, node, depth):
        return self.weight(self, node, depth)


PRESETS = {
    "qwen": dict(bias=0.6, upper=0.95, lower=0, steps=[0.05, 0.1, 0.2]),
    "llava_local": dict(bias=0.2, upper=0.6, lower=0, steps=[0.1, 0.1, 0.2]),
    "internvl": dict(bias=0.6, upper=0.2, lower=-0.2, steps=[0.1, 0.1, 0.2]),
}


def case(modules, number):
    tree, _, zoom_eye, zoom_model = modules
    dice = random.Random(number)
    size = [dice.randrange(300, 5000), dice.randrange(300, 5000)]
    patch = dice.choice([112, 224, 336, 448])
    split = dice.choice([4, 4, 4, 9, 16])
    preset = dice.choice(sorted(PRESETS))
    rules = PRESETS[preset]
    oracle = [dice.randrange(1 << 32), dice.choice([8, 20, 2000]), dice.choice([0, 0.5, 0.9, 1.2])]
    bottom, skip = dice.random() < 0.4, dice.random() < 0.3
    made = picture_tree(tree, size, patch, split)
    model = Scripted(zoom_model, oracle, rules["bias"])
    found, pops, _, _ = zoom_eye.zoom_eye_search_type1(
        pop_limit=lambda depth: depth * 3, num_intervel=2, threshold_descrease=rules["steps"], depth_limit=5,
        question="", visual_cue="", answering_confidence_threshold_lower=rules["lower"],
        answering_confidence_threshold_upper=rules["upper"], force_visit_bottom=bottom, force_no_root=skip,
        image_tree=made, zoom_model=model,
    )
    found.sort(key=lambda node: node.depth, reverse=True)
    again = picture_tree(tree, size, patch, split)
    all_found = zoom_eye.zoom_eye_search_type2(
        depth_limit=2, image_tree=again, visual_cue="", zoom_model=Scripted(zoom_model, oracle, 0),
        visual_cue_threshold=0.6,
    )
    return {
        "size": size, "patch": patch, "split": split, "preset": preset, "oracle": oracle, "bottom": bottom,
        "skip": skip, "depth": min(made.max_depth, 5), "pops": pops, "looked": model.looked,
        "found": list(found[0].state.bbox) if found else None, "all": [list(node.state.bbox) for node in all_found],
    }


def shown(modules, number):
    """What of an area is shown, and which crops are shown as one."""
    _, utils, _, zoom_model = modules
    dice = random.Random(number)
    size = [dice.randrange(400, 4000), dice.randrange(400, 4000)]
    scale = dice.choice([None, 1.2])
    boxes = []
    for _ in range(dice.randrange(1, 6)):
        w, h = dice.randrange(40, size[0] // 3), dice.randrange(40, size[1] // 3)
        boxes.append([dice.randrange(size[0] - w), dice.randrange(size[1] - h), w, h])
    crops = [zoom_model.ZoomModel.get_patch(None, box, *size, patch_size=448, patch_scale=scale) for box in boxes]
    near = [[x, y, x + w // 2, y + h // 2] for x, y, w, h in boxes]
    merged = utils.merge_bbox_list(near)
    return {"size": size, "margin": scale or 1.0, "areas": boxes, "crops": crops, "near": near,
            "merged": [list(box) for box in merged]}


if __name__ == "__main__":
    modules = original(pathlib.Path(sys.argv[1]).resolve())
    searches = [json.dumps(case(modules, number), separators=(",", ":")) for number in range(240)]
    crops = [json.dumps(shown(modules, 1000 + number), separators=(",", ":")) for number in range(40)]
    text = '{"searches":[\n' + ",\n".join(searches) + '\n],"crops":[\n' + ",\n".join(crops) + "\n]}\n"
    (HERE / "search.json").write_text(text)
