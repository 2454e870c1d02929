"""OpenSeeD's head against LLaVA-Grounding's own code: run once from a clone of it, and kept as a few numbers for the self-test.

Both get the same random weights, and the same pictures and phrases. None of the clone's code is needed to export.
"""

import importlib
import json
import sys
import tempfile
import types
import warnings
from pathlib import Path

import torch

from . import onnx_files, openseed, openseed_head, tiny
from .errors import Refused
from .runner import Sessions

TOLD = Path(__file__).with_name("openseed_told.json")
CONFIG = "configs/openseed/openseed_swint_lang_joint_2st.yaml"
QUESTIONS = "datasets_os/dataset_mappers/vg_instance_new_baseline_dataset_mapper.py"
SMALL = {"side": 256, "queries": 20, "phrase": 48}
# Windows that do and do not fit, odd and even depths, a head and several.
TOWER = (8, [(2, 1, 16), (1, 2, 32), (3, 2, 64), (2, 4, 128)], 7)
COUNTS = (1, 2, 7)
# Of the largest logit, and of boxes in pixels.
ALLOWED = 1e-4, 0.5


def small(side, queries, phrase):
    return openseed_head.Published(side, queries, TOWER, [16, 32, 64], 64, phrase, (8, 48, 2), (8, 48, 3))


def calm(head):
    """Random weights send every box to an edge; small ones leave them where the picture is."""
    last = head.sem_seg_head["predictor"]._bbox_embed["layers"][-1]
    with torch.no_grad():
        last.weight *= 0.03
        last.bias *= 0.1


def randomise(head):
    tiny.randomise(head, 3)
    calm(head)
    return head.requires_grad_(False)


def shown(head, counts):
    random = torch.Generator().manual_seed(5)
    for count in counts:
        yield (torch.randn(1, 3, head.side, head.side, generator=random),
               torch.randn(1, count, head.width, generator=random))


def compare(got, want, side, what):
    """Largest differences of logits, in parts of the largest, and of boxes in pixels."""
    want, got = openseed.paired(want, got)
    logits, boxes = (float(abs(a - b).max()) * size for a, b, size in zip(got, want, (1 / abs(want[0]).max(), side)))
    if not (logits <= ALLOWED[0] and boxes <= ALLOWED[1]):
        raise Refused(f"{what} differs from LLaVA-Grounding's own code: logits by {logits:.1e} of the largest, boxes by "
                      f"{boxes:.1e} pixels; allowed are {ALLOWED[0]:g} and {ALLOWED[1]:g}")
    return logits, boxes


def measured(head, told, scratch, counts):
    """The module and its graphs, of every count of phrases, against what was told."""
    for graph in openseed.graphs(head, head.side, head.width):
        onnx_files.write(graph, scratch)
    sessions, worst = Sessions(scratch, ("head_vision", "head")), [(0.0, 0.0)]
    for (pixels, phrases), want in zip(shown(head, counts), told, strict=True):
        with torch.no_grad():
            found = [value.numpy() for value in head.find(head.see(pixels), phrases)]
        worst.append(compare(found, want, head.side, "the head"))
        seen = sessions.run("head_vision", {"pixel_values": pixels.numpy()})
        found = sessions.run("head", {**seen, "phrase_embeds": phrases.numpy()})
        worst.append(compare([found["pred_logits"], found["pred_boxes"]], want, head.side, "the exported head"))
    logits, pixels = map(max, zip(*worst))
    return (f"OpenSeeD's head and its graphs against LLaVA-Grounding's own code, {', '.join(map(str, counts))} phrases: logits "
            f"within {logits:.1e} of the largest, boxes within {pixels:.1e} pixels of {head.side}")


def held(scratch):
    """Against the numbers that were kept."""
    told = [[torch.tensor(value)[None].numpy() for value in pair] for pair in json.loads(TOLD.read_text())]
    return measured(randomise(small(**SMALL)), told, scratch, COUNTS)


def as_published(state):
    """A checkpoint with what is not read, and the module of boxes under another of its names."""
    predictor = "seg_model.model.sem_seg_head.predictor."
    state = {name.replace("._bbox_embed.", ".bbox_embed.0."): tensor for name, tensor in state.items()}
    unread = {"seg_model.model.criterion.empty_weight": 2, predictor + "lang_mapper": 3,
              predictor + "mask_embed.layers.0.bias": 4, "interactive_model.model.pixel_mean": 3}
    return state | {name: torch.ones(size) for name, size in unread.items()}


def refused():
    """Heads that are another than the published one, and would be wrong without a word."""
    state, inner = small(**SMALL).state_dict(), "backbone.layers.0.blocks.0."
    size = {"side": SMALL["side"], "queries": SMALL["queries"]}
    one = torch.ones(1)
    for what, others, changed, saying in (
            ("a position table", state | {"backbone.absolute_pos_embed": one}, {}, "absolute_pos_embed` is not of"),
            ("queries of its own", state | {"sem_seg_head.predictor.query_feat.weight": one}, {}, "query_feat.weight` is not of"),
            ("another tower", {k: v for k, v in state.items() if k != inner + "mlp.fc1.weight"}, {}, "fc1.weight` is missing"),
            ("a side between cells", state, {"side": 200}, "multiple of 64"),
            ("a side without room", state, {"side": 64, "queries": 90}, "90 boxes")):
        try:
            openseed_head.build(others, **size | changed)
        except Refused as e:
            if saying not in str(e):
                raise Refused(f"{what}: was refused for another reason: {e}") from e
        else:
            raise Refused(f"OpenSeeD's head with {what}: was built")
    return "refuses parts that are not the published head's, another tower, sides that do not fit"


def imported(clone, detectron2):
    """The clone's package of the head, without the language model's around it, and with its own plain form of the operator."""
    clone = Path(clone).resolve()
    if not (clone / CONFIG).is_file():
        raise Refused(f"{clone / CONFIG}: is missing; give a clone of LLaVA-Grounding")
    sys.path[:0] = [str(Path(detectron2).resolve())] if detectron2 else []
    for name in ("llava", "llava.model"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(clone / name.replace(".", "/"))]
    # The compiled operator; only its name is asked for at import.
    sys.modules.setdefault("MultiScaleDeformableAttention", types.ModuleType("MultiScaleDeformableAttention"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            package = importlib.import_module("llava.model.openseed")
            ops = "llava.model.openseed.body.encoder.ops."
            plain = importlib.import_module(ops + "functions.ms_deform_attn_func").ms_deform_attn_core_pytorch
            attention = importlib.import_module(ops + "modules.ms_deform_attn")
    except ImportError as e:
        raise Refused(f"{clone}: {e}; its code needs detectron2 (--detectron2), fvcore, iopath, omegaconf, hydra-core, "
                      "pycocotools, timm, torchvision and scipy") from e

    class Operator:
        @staticmethod
        def apply(value, shapes, _starts, places, weights, _step):
            return plain(value, shapes, places, weights)

    attention.MSDeformAttnFunction = Operator
    return package


def settings(clone, full):
    import yaml
    told = yaml.safe_load((Path(clone) / CONFIG).read_text())
    model = told["MODEL"]
    model["BACKBONE"]["LOAD_PRETRAINED"] = False
    if not full:
        width, stages, window = TOWER
        model["DIM_PROJ"] = SMALL["phrase"]
        model["BACKBONE"]["SWIN"].update(
            EMBED_DIM=width, DEPTHS=[stage[0] for stage in stages], NUM_HEADS=[stage[1] for stage in stages],
            WINDOW_SIZE=window, MLP_RATIO=2.0)
        model["ENCODER"].update(CONVS_DIM=64, MASK_DIM=64, TRANSFORMER_ENC_LAYERS=2)
        model["DECODER"].update(HIDDEN_DIM=64, DIM_FEEDFORWARD=48, DEC_LAYERS=3, NUM_OBJECT_QUERIES=SMALL["queries"])
    return told


def asked(clone):
    """The question of the prompt is, to the letter, what the clone's code makes of a phrase when it trains."""
    from .llava_grounding import PROMPT
    question = PROMPT.split("USER: ")[1].removesuffix(" ASSISTANT:")
    path = Path(clone) / QUESTIONS
    if question.replace("\n", "\\n").replace("{}", "{label_set[i]}") not in path.read_text():
        raise Refused(f"{path}: does not ask {question!r}")


def given_to(theirs, head):
    """Loads our weights by the checkpoint's names, through every name that one module has."""
    own, predictor, state = head.state_dict(), "sem_seg_head.predictor.", {}
    for name in theirs.state_dict():
        at = name
        if "bbox_embed." in name:
            at = predictor + "_bbox_embed.layers." + name.split(".layers.")[1]
        elif name.startswith(predictor + "decoder.norm."):
            at = predictor + "decoder_norm." + name.rsplit(".", 1)[1]
        if at in own:
            state[name] = own[at]
    lost = sorted(set(own) - set(state))
    if lost:
        raise Refused(f"the clone's head has no `{lost[0]}`")
    theirs.load_state_dict(state, strict=False)


def run(clone, detectron2, full, write, say=print):
    package = imported(clone, detectron2)
    asked(clone)
    theirs = package.build_model(settings(clone, full)).eval().requires_grad_(False)
    # The shapes of the clone's tensors must lead to the same module that a checkpoint's do.
    size = {} if full else {"side": SMALL["side"], "queries": SMALL["queries"]}
    head = randomise(openseed_head.build(openseed_head.settle(theirs.state_dict()), **size))
    given_to(theirs, head)
    counts, told = COUNTS[1:2] if full else COUNTS, []
    for pixels, phrases in shown(head, counts):
        embeddings = phrases, torch.ones(phrases.shape[:2], dtype=torch.bool)
        found = theirs.sem_seg_head(theirs.backbone(pixels), task="seg", default_text_embeddings=embeddings)[0]
        told.append([found["pred_logits"].numpy(), found["pred_boxes"].numpy()])
    with tempfile.TemporaryDirectory() as scratch:
        say(measured(head, told, scratch, counts))
    if write and not full:
        kept = [[[[round(float(v), 6) for v in row] for row in one[0]] for one in pair] for pair in told]
        TOLD.write_text(json.dumps(kept) + "\n")
        say(f"{TOLD}: written")
