"""The first part of training: the image side learns from a detector's answers for every cell, and from labels where there are any.

A detector that saw a hundred thousand pictures tells more about a picture than its boxes do: what it answers for each cell, and
the features that it reads it from (Hinton et al. 2015; FitNets, Romero et al. 2015). So few pictures, cropped and pasted
in ever new ways, go far. The schedule follows the wall clock: a run ends annealed whatever the machine did.
"""

import copy
import json
import math
import os
import queue
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import compose, targets
from .blocks import half_precision
from .dense_teacher import HINT_WIDTHS, DenseTeacher
from .samples import Sampler
from .spec import HEIGHT, MAPS, WIDTH
from .vision import CHANNELS, FINE, Vision
from .vocab import OTHER

BATCH = 12
FRESH = 6             # of them new, at most
KEPT = 1500           # earlier samples, from which the others are drawn: a teacher costs a third of a training step
RATE = 2.0e-3
MINUTES = 75
DECAY = 0.02
CLIP = 5.0
WARMUP = 0.02
SAVE_EVERY = 150      # seconds
KNOWN = 0.3           # a teacher's score from which it has seen a labelled object by itself
LABEL = 0.75          # score that a labelled object is given where it has not


def rate(progress, peak):
    """Cosine over elapsed time, warm-up first."""
    if progress < WARMUP:
        return peak * max(progress / WARMUP, 0.02)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARMUP) / (1 - WARMUP)))))


class Ema:
    """Averaged weights; they are what is measured and shipped."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).eval()
        self.steps = 0

    @torch.no_grad()
    def update(self, model):
        self.steps += 1
        keep = min(0.998, self.steps / (self.steps + 20))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - keep)
            else:
                mine.copy_(theirs)


class Student(nn.Module):
    """The image side, and what reads the teacher's features out of its own; only the former is kept."""

    def __init__(self):
        super().__init__()
        self.vision = Vision()
        widths = (*CHANNELS[2:], *[MAPS] * 4)
        self.adapters = nn.ModuleList(nn.Conv2d(mine, theirs, 1) for mine, theirs in zip(widths, HINT_WIDTHS))

    def forward(self, pixels):
        stages, maps, _ = self.vision.encode(pixels)
        with half_precision(self.training):
            hints = [adapter(m) for adapter, m in zip(self.adapters, (*stages, *maps))]
        return self.vision.proposals(maps), hints


def iou(a, b):
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    inter = np.clip(high - low, 0, None).prod(1)
    area = lambda x: np.clip(x[:, 2:] - x[:, :2], 0, None).prod(1)
    return inter / (area(a) + area(b) - inter + 1e-6)


def merge(frame, scores, boxes):
    """The teacher's answers, corrected where a label knows of an object that it does not see."""
    strength, owner = targets.assign(frame.boxes)
    best = scores.max(1)
    judged = ~(targets.unjudged(frame.ignored) & (best < KNOWN))
    sure = np.flatnonzero(best > 0.15)
    for i, (box, kind) in enumerate(zip(frame.boxes, frame.classes)):
        if kind == OTHER:
            continue
        near = sure[iou(boxes[sure], np.broadcast_to(box, (len(sure), 4))) > 0.5] if len(sure) else sure
        if len(near) and scores[near, kind].max() > KNOWN:
            continue
        mine = owner == i
        scores[mine] = 0
        scores[mine, kind] = LABEL * strength[mine]
        boxes[mine] = box
        judged[mine] = True
    return scores, boxes, judged


def teach(work, detectors, seed, lessons):
    """A process of its own: samples with the teacher's answers, as fast as they are taken."""
    import cv2
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sampler, teacher = new_sampler(work, seed), DenseTeacher(detectors / "picodet_s_416_coco.onnx")
    while True:
        frame = sampler.scene()
        rgb = np.ascontiguousarray(frame.image[..., ::-1])
        scores, boxes, hints = teacher(rgb)
        scores, boxes, judged = merge(frame, scores, boxes)
        lessons.put({"pixels": rgb, "scores": scores.astype(np.float16), "boxes": boxes.astype(np.float16), "judged": judged,
                     "hints": [h.astype(np.float16) for h in hints]})


def new_sampler(work, seed):
    records = [r for r in json.loads((work / "data/index.json").read_text()) if r["split"] == "train"]
    return Sampler(work / "data", records, compose.make_pool(work / "sprites.npy"), seed)


class Lessons:
    """Batches of new samples, as many as are ready, and of earlier ones, which only change their light."""

    def __init__(self, work, detectors, seed):
        self.kept, self.rng, self.fresh = [], np.random.default_rng(seed), 0
        self.queue = torch.multiprocessing.get_context("spawn").Queue(BATCH)
        self.teacher = torch.multiprocessing.get_context("spawn").Process(
            target=teach, args=(work, detectors, seed, self.queue), daemon=True)
        self.teacher.start()

    def take(self):
        chosen = []
        while len(chosen) < FRESH:
            try:
                sample = self.queue.get(timeout=0.02 if len(self.kept) >= 5 * BATCH else None)  # a pipe holds less than one
            except queue.Empty:
                break
            sample = {key: [torch.from_numpy(x) for x in value] if key == "hints" else torch.from_numpy(value) for key, value in sample.items()}
            chosen.append(sample)
            if len(self.kept) < KEPT:
                self.kept.append(sample)
            else:
                self.kept[self.rng.integers(KEPT)] = sample
        self.fresh += len(chosen)
        return chosen

    def batch(self):
        chosen = self.take()
        chosen += [self.kept[i] for i in self.rng.integers(len(self.kept), size=BATCH - len(chosen))]
        stacked = {key: torch.stack([s[key] for s in chosen]) for key in ("pixels", "scores", "boxes", "judged")}
        light = torch.empty(len(chosen), 1, 1, 1).uniform_(0.75, 1.25)
        tint = torch.empty(len(chosen), 1, 1, 3).uniform_(0.94, 1.06)
        stacked["pixels"] = (stacked["pixels"].float() * light * tint).clamp(0, 255)
        stacked["hints"] = [torch.stack([s["hints"][i] for s in chosen]).float() for i in range(len(HINT_WIDTHS))]
        return stacked


def giou_loss(a, b):
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - inter
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(-1)
    return 1 - inter / (union + 1e-6) + (hull - union) / (hull + 1e-6)


def quality_focal(logits, target):
    """Focal loss towards a score in 0..1 (Li et al. 2020, "Generalized Focal Loss"), not reduced."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (target - logits.sigmoid()).detach().abs() ** 1.5


def losses(student, batch, spread):
    (heat, boxes, kinds), hints = student(batch["pixels"])
    scores, judged = batch["scores"].float(), batch["judged"].float()
    best = scores.max(2).values
    count = best[best > 0.1].sum().clamp(min=1)
    parts = {
        "heat": (quality_focal(heat, best) * judged).sum() / count,
        "kind": (quality_focal(kinds, scores.transpose(1, 2)) * judged.unsqueeze(1)).sum() / count,
    }
    row, cell = torch.nonzero(best > 0.1, as_tuple=True)
    share, canvas = best[row, cell], heat.new_tensor([WIDTH, HEIGHT] * 2)
    parts["box"] = (giou_loss(boxes.transpose(1, 2)[row, cell] * canvas, batch["boxes"].float()[row, cell]) * share).sum() / count
    far = [F.smooth_l1_loss(mine.float() / s, theirs / s) for mine, theirs, s in zip(hints, batch["hints"], spread)]
    parts["stages"], parts["maps"] = sum(far[:3]) / 3, sum(far[3:]) / 4
    return parts


WEIGHTS = {"heat": 1.0, "kind": 1.0, "box": 1.5, "stages": 2.0, "maps": 4.0}


@torch.no_grad()
def thin_out(vision, sampler, pictures=60):
    """Sets the projection of the finest map, which regions are sampled from, to its principal components at unit variance.
    The image side is not trained any more once regions are."""
    rows = []
    for _ in range(pictures // 10):
        pixels = torch.stack([torch.from_numpy(np.ascontiguousarray(sampler.scene().image[..., ::-1])) for _ in range(10)])
        fine = vision.encode(pixels)[1][0]
        rows.append(fine.permute(0, 2, 3, 1).reshape(-1, MAPS)[::7])
    rows = torch.cat(rows)
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    best = (vectors[:, -FINE:] / values[-FINE:].clamp(min=1e-6).sqrt()).T
    vision.regions.thin.weight.copy_(best[:, :, None, None])
    vision.regions.thin.bias.copy_(-best @ mean)


def finish(path, vision, sampler, state):
    """The averaged weights with their averaged batch-norm statistics: measured over again on whole pictures, they did worse."""
    thin_out(vision, sampler)
    torch.save({"vision": vision.state_dict(), **state}, path)


def save(path, student, ema, optimiser, state):
    partial = path.with_suffix(".partial")
    torch.save({"student": student.state_dict(), "ema": ema.model.state_dict(), "ema_steps": ema.steps,
                "optimiser": optimiser.state_dict(), **state}, partial)
    partial.rename(path)


def groups(model):
    """No decay on norms and biases."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]


def distil(work, detectors, minutes, resume=False, peak=RATE):
    """Trains for `minutes`, ends with settled norms in vision.pt; `resume` goes on from distil.pt with a fresh schedule."""
    started, seed = time.time(), int.from_bytes(os.urandom(3), "big") if resume else 0
    torch.manual_seed(seed)
    student = Student()
    ema = Ema(student)
    optimiser = torch.optim.AdamW(groups(student), lr=peak, betas=(0.9, 0.98))
    state, checkpoint = {"steps": 0, "images": 0}, work / "distil.pt"
    if resume and checkpoint.exists():
        loaded = torch.load(checkpoint, map_location="cpu")
        student.load_state_dict(loaded["student"])
        ema.model.load_state_dict(loaded["ema"])
        ema.steps = loaded["ema_steps"]
        optimiser.load_state_dict(loaded["optimiser"])
        state = {key: loaded[key] for key in state}
    lessons = Lessons(work, detectors, seed)
    student.to(memory_format=torch.channels_last)
    student.train()
    spread = [h.float().pow(2).mean().sqrt() for h in lessons.batch()["hints"]]
    budget, saved, first, sums = minutes * 60, time.time(), state["steps"], {}
    while (spent := time.time() - started) < budget:
        for group in optimiser.param_groups:
            group["lr"] = rate(spent / budget, peak)
        parts = losses(student, lessons.batch(), spread)
        loss = sum(WEIGHTS[name] * value for name, value in parts.items())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        if torch.isfinite(norm):
            optimiser.step()
            ema.update(student)
        state["steps"] += 1
        state["images"] += BATCH
        for name, value in {"loss": loss, "norm": norm, **parts}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / 50
        if state["steps"] % 50 == 0:
            speed, new = (state["steps"] - first) * BATCH / (time.time() - started), lessons.fresh
            print(f"{spent/60:6.1f} min  step {state['steps']}  {speed:.1f} img/s ({new} new)  " + " ".join(f"{k} {v:.3f}" for k, v in sums.items()), flush=True)
            sums = {}
        if time.time() - saved > SAVE_EVERY:
            save(checkpoint, student, ema, optimiser, state)
            saved = time.time()
    save(checkpoint, student, ema, optimiser, state)
    lessons.teacher.terminate()
    finish(work / "vision.pt", ema.model.vision, new_sampler(work, seed + 1), state)
