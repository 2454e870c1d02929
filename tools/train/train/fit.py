"""The second part of training: words, selection, the detection head and writing, on scenes that were looked at beforehand."""

import copy
import os
import time

import numpy as np
import torch

from . import losses, restore, scenes
from .distil import Ema, new_sampler, rate, sampled
from .export import new_model
from .phrases import Writer
from .samples import OBJECTS, QUERIES
from .spec import HEIGHT, TOKENS, WIDTH

BATCH = 20         # scenes
SLOTS = 48         # best regions of each that are shown while training
RATE = 1.2e-3
MINUTES = 25
CLIP = 2.0
BLIND = 0.25       # share of regions that are known by class likeness, colours and place alone: what maps hold of a camera is easily
                   # learned by heart, what a class looks like was learned from far more pictures
SAVE_EVERY = 150   # seconds
IGNORED = 256      # boxes of a scene that nobody judged; a crowd, or two pictures side by side, have dozens
FIXED = ("vision.encoder", "vision.proposals", "vision.regions.thin")  # trained by `distil`, and read by what is trained here
CANVAS = np.array([WIDTH, HEIGHT] * 2, np.float32)


def padded(array, length, fill):
    return np.concatenate([array[:length], np.full((max(0, length - len(array)), *array.shape[1:]), fill, array.dtype)])


def ask(scene, rng):
    """Labels and fresh queries of one scene as fixed-size arrays."""
    known, n = scene["scene"], len(scene["scene"].boxes)
    states, ids = np.zeros((QUERIES, OBJECTS), np.int64), np.zeros((QUERIES, TOKENS), np.int64)
    none, asked = np.full(QUERIES, -1, np.int64), np.zeros(QUERIES, bool)
    for q, query in enumerate(Writer(known, rng).write(QUERIES)[:QUERIES]):
        states[q, :n], ids[q], none[q], asked[q] = query.states, query.ids, query.none, True
    return {
        "truth": padded((known.boxes / CANVAS).astype(np.float32), OBJECTS, 0), "classes": padded(known.classes.astype(np.int64), OBJECTS, 0),
        "colour": padded(known.colours.astype(np.int64), OBJECTS, -1), "states": states, "ids": ids, "none": none, "asked": asked,
        "ignored": padded((scene["ignored"] / CANVAS).astype(np.float32), IGNORED, 0),
    }


def batch_of(chosen, rng):
    labels = [ask(scene, rng) for scene in chosen]
    batch = {key: torch.from_numpy(np.stack([label[key] for label in labels])) for key in labels[0]}
    for key in ("seen", "kind", "colours", "boxes", "objectness"):
        batch[key] = torch.stack([scene[key][:SLOTS] for scene in chosen]).float()
    for key in ("cells", "places", "heat"):
        batch[key] = torch.stack([scene[key] for scene in chosen]).float()
    batch["heat"] = batch["heat"].sigmoid()
    batch["seen"] *= (torch.rand(batch["objectness"].shape) >= BLIND).unsqueeze(-1)
    hidden = torch.rand(batch["objectness"].shape) < 0.05  # a region may be missed: answers must not hang on one
    batch["objectness"] = batch["objectness"].masked_fill(hidden, 0)
    return batch


def save(path, model, ema, optimiser, state):
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "ema": ema.model.state_dict(), "ema_steps": ema.steps,
                "optimiser": optimiser.state_dict(), **state}, partial)
    partial.rename(path)


def fit(work, minutes, resume=False, peak=RATE, shipped=None, seed=0):
    """Trains for `minutes`; `resume` goes on from last.pt with a fresh schedule, `shipped`, a folder of ONNX files, from what they hold."""
    torch.manual_seed(seed)
    torch.set_num_threads(os.cpu_count() or 1)
    model = new_model() if shipped is None else restore.shipped(shipped)
    before = copy.deepcopy(model.vision).eval()
    model.vision.load_state_dict(scenes.load_vision(work).state_dict())
    if shipped is not None:
        shares = restore.translate(before, model.eval(), sampled(new_sampler(work, seed + 3), 20))
        print("of what regions and cells said before, the image side still says", shares, flush=True)
    ema = Ema(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FIXED))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(groups_of(learning), lr=peak, betas=(0.9, 0.98))
    state, checkpoint = {"steps": 0, "queries": 0}, work / "last.pt"
    if resume:
        if not checkpoint.exists():
            raise SystemExit(f"there is no {checkpoint} to resume from")
        loaded = torch.load(checkpoint, map_location="cpu")
        # What is not trained here is the image side's as it is now, which may have moved on.
        fixed = {name: value for name, value in model.state_dict().items() if name.startswith(FIXED)}
        model.load_state_dict({**loaded["model"], **fixed})
        ema.model.load_state_dict({**loaded["ema"], **fixed})
        ema.steps = loaded["ema_steps"]
        optimiser.load_state_dict(loaded["optimiser"])
        state = {key: loaded[key] for key in state}
    known, rng = scenes.load(work), np.random.default_rng(seed + state["steps"])
    model.train()
    started = saved = time.time()
    budget, sums = minutes * 60, {}
    while (spent := time.time() - started) < budget:
        for group in optimiser.param_groups:
            group["lr"] = rate(spent / budget, peak)
        batch = batch_of([known[i] for i in rng.integers(len(known), size=BATCH)], rng)
        loss, parts = losses.total(model, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(learning, CLIP)
        if torch.isfinite(norm):
            optimiser.step()
            ema.update(model)
        state["steps"] += 1
        state["queries"] += int(batch["asked"].sum())
        for name, value in {"loss": float(loss.detach()), **parts}.items():
            sums.setdefault(name, []).append(value)
        if state["steps"] % 100 == 0:
            print(f"{spent/60:6.1f} min  step {state['steps']}  {state['queries']} queries  "
                  + " ".join(f"{k} {np.mean(v):.3f}" for k, v in sums.items()), flush=True)
            sums = {}
        if time.time() - saved > SAVE_EVERY:
            save(checkpoint, model, ema, optimiser, state)
            saved = time.time()
    save(checkpoint, model, ema, optimiser, state)


def groups_of(parameters):
    """No decay on norms and biases."""
    return [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.02},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]
