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

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import compose, restore, targets, teacher
from .blocks import half_precision
from .dense_teacher import HINT_WIDTHS, DenseTeacher
from .phrases import CONFUSED
from .samples import Sampler
from .spec import GRIDS, HEIGHT, MAPS, WIDTH
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
CERTAIN = 0.9         # score that the best cell of a labelled object is drawn half-way to where the teacher has seen it
DENIED = 0.35         # of a teacher's score is left where the labels are known to be complete and show nothing
WILD = 0.5            # share of new samples that are mixtures of which only the teacher knows what they show
DULL = 0.25           # share of pictures that the pupil sees without colour, or coarser than the teacher does
SETTLING = 90         # seconds in which only the adapters learn, when the image side has learned before


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


def deny(frame, scores, boxes, sure):
    """Weakens what the teacher sees where labels are complete and show nothing of the kind."""
    inside = targets.unjudged(frame.ignored)[sure]
    overlap = teacher.iou(boxes[sure], frame.boxes)
    for kind in frame.trusted - {OTHER}:
        alike = [i for i, k in enumerate(frame.classes) if k in (kind, OTHER) or frozenset((int(k), kind)) in CONFUSED]
        wrong = sure[(overlap[:, alike].max(1, initial=0) < 0.4) & ~inside]
        scores[wrong, kind] *= DENIED


def merge(frame, scores, boxes):
    """The teacher's answers, corrected by the labels: what it does not see, what it sees and is not there, and where exactly things are."""
    strength, owner = targets.assign(frame.boxes)
    best = scores.max(1)
    judged = ~(targets.unjudged(frame.ignored) & (best < KNOWN))
    sure = np.flatnonzero(best > 0.1)
    deny(frame, scores, boxes, sure)
    overlap = teacher.iou(boxes[sure], frame.boxes) if len(frame.boxes) else np.zeros((len(sure), 0))
    nearest = overlap.argmax(1) if overlap.size else np.full(len(sure), -1)
    for i, (box, kind) in enumerate(zip(frame.boxes, frame.classes)):
        if kind == OTHER:
            continue
        near = sure[(overlap[:, i] > 0.5) & (nearest == i)]
        if len(near) and (peak := scores[near, kind].max()) > KNOWN:
            scores[near, kind] = np.minimum(scores[near, kind] * max(1.0, 0.5 + 0.5 * CERTAIN / peak), 1.0)
            boxes[near] = box
            continue
        mine = owner == i
        scores[mine] = 0
        scores[mine, kind] = LABEL * strength[mine]
        boxes[mine] = box
        judged[mine] = True
    return scores, boxes, judged


def teach(work, detectors, seed, lessons):
    """A process of its own: samples with the teacher's answers, as fast as they are taken."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sampler, ask = new_sampler(work, seed), DenseTeacher(detectors / "picodet_s_416_coco.onnx")
    while True:
        frame = sampler.wild() if sampler.rng.random() < WILD else sampler.scene()
        rgb = np.ascontiguousarray(frame.image[..., ::-1])
        scores, boxes, hints = ask(rgb)
        scores, boxes, judged = merge(frame, scores, boxes)
        lessons.put({"pixels": dull(rgb, sampler.rng), "scores": scores.astype(np.float16), "boxes": boxes.astype(np.float16), "judged": judged,
                     "hints": [h.astype(np.float16) for h in hints]})


def dull(rgb, rng):
    """Some pictures as a poor camera would give them: the teacher has seen the good one."""
    if (roll := rng.random()) > DULL:
        return rgb
    if roll < 0.4 * DULL:
        return np.repeat(rgb.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    by = rng.uniform(1.4, 2.4)
    small = cv2.resize(rgb, None, fx=1 / by, fy=1 / by, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def new_sampler(work, seed):
    records = [r for r in json.loads((work / "data/index.json").read_text()) if r["split"] == "train"]
    return Sampler(work / "data", records, compose.make_pool(work / "sprites.npy"), seed)


def mirrored(sample):
    """The same lesson seen in a mirror: maps are turned row by row, boxes change sides."""
    def turn(cells):
        parts = cells.split([h * w for h, w in GRIDS])
        return torch.cat([p.unflatten(0, grid).flip(1).flatten(0, 1) for p, grid in zip(parts, GRIDS)])
    boxes = turn(sample["boxes"])
    boxes = torch.stack([WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]], 1)
    return {"pixels": sample["pixels"].flip(1), "scores": turn(sample["scores"]), "boxes": boxes, "judged": turn(sample["judged"]),
            "hints": [h.flip(2) for h in sample["hints"]]}


class Lessons:
    """Batches of new samples, as many as are ready, and of earlier ones, which only change their light and their sides."""

    def __init__(self, work, detectors, seed):
        self.kept, self.rng, self.fresh = [], np.random.default_rng(seed), 0
        self.queue = torch.multiprocessing.get_context("spawn").Queue(BATCH)
        self.teacher = torch.multiprocessing.get_context("spawn").Process(
            target=teach, args=(work, detectors, seed, self.queue), daemon=True)
        self.teacher.start()

    def take(self):
        chosen = []
        while len(chosen) < FRESH:
            enough = len(self.kept) >= 5 * BATCH
            try:
                sample = self.queue.get(timeout=0.02 if enough else 5)  # a pipe holds less than one
            except queue.Empty:
                if not self.teacher.is_alive():
                    raise SystemExit("the process that prepares lessons has ended; what it said last is above")
                if enough:
                    break
                continue
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
        again = [self.kept[i] for i in self.rng.integers(len(self.kept), size=BATCH - len(chosen))]
        chosen += [mirrored(s) if self.rng.random() < 0.5 else s for s in again]
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


def sampled(sampler, batches):
    for _ in range(batches):
        yield torch.stack([torch.from_numpy(np.ascontiguousarray(sampler.scene().image[..., ::-1])) for _ in range(10)])


@torch.no_grad()
def even_out(vision, sampler, least=0.02):
    """Brings every channel of the maps to about unit size, so that whatever learns to read them learns evenly; nothing else changes.
    A map's last rectifier passes a positive factor on, and the depthwise convolutions that read the map take it back. One factor a
    channel for all maps: the tower reads them all."""
    squares = [torch.cat([m.pow(2).mean((0, 2, 3))[None] for m in vision.encode(pixels)[1]]) for pixels in sampled(sampler, 4)]
    size = torch.stack(squares).mean((0, 1)).sqrt().clamp(min=least)
    encoder = vision.encoder
    for last in (encoder.top8, encoder.out16, encoder.out32, encoder.down64):
        last[1][1].weight.div_(size)
        last[1][1].bias.div_(size)
    for reader in (encoder.down16, encoder.down32, encoder.down64, vision.proposals.tower[0]):
        reader[0][0].weight.mul_(size[:, None, None, None])


@torch.no_grad()
def thin_out(vision, sampler, pictures=60):
    """Sets the projection of the finest map, which regions are sampled from, to its principal components at unit variance.
    The image side is not trained any more once regions are."""
    rows = []
    for pixels in sampled(sampler, pictures // 10):
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
    even_out(vision, sampler)
    thin_out(vision, sampler)
    torch.save({"vision": vision.state_dict(), **state}, path)


def save(path, student, ema, optimiser, state):
    partial = path.with_suffix(".partial")
    torch.save({"student": student.state_dict(), "ema": ema.model.state_dict(), "ema_steps": ema.steps,
                "optimiser": optimiser.state_dict(), **state}, partial)
    partial.rename(path)


def groups(student):
    """No decay on norms and biases; the adapters apart."""
    vision = list(student.vision.parameters())
    decayed = [p for p in vision if p.ndim >= 2]
    plain = [p for p in vision if p.ndim < 2]
    return [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0},
            {"params": list(student.adapters.parameters()), "weight_decay": DECAY}]


def train_mode(student):
    """The norms of the tower, which reads maps of four strides, keep their statistics once they have any: those of a batch differ by map."""
    student.train()
    if student.vision.proposals.settled:
        student.vision.proposals.tower.eval()


def distil(work, detectors, minutes, resume=False, peak=RATE, shipped=None, seed=0):
    """Trains for `minutes`, ends with settled norms in vision.pt; `resume` goes on from distil.pt with a fresh schedule,
    and `shipped`, a folder of ONNX files, from what they hold. Whoever goes on from what was trained before wants another `seed`, and
    with it other lessons."""
    torch.set_num_threads(os.cpu_count() or 1)  # the teacher takes half a core of them
    started, seed = time.time(), int.from_bytes(os.urandom(3), "big") if resume else seed
    torch.manual_seed(seed)
    student = Student()
    optimiser = torch.optim.AdamW(groups(student), lr=peak, betas=(0.9, 0.98))
    state, checkpoint = {"steps": 0, "images": 0}, work / "distil.pt"
    if resume and not checkpoint.exists():
        raise SystemExit(f"there is no {checkpoint} to resume from")
    if shipped is not None and not resume:
        student.vision.load_state_dict(restore.shipped(shipped).vision.state_dict())
        restore.settle(student.vision, sampled(new_sampler(work, seed + 2), 12))
    student.vision.proposals.settled = shipped is not None or resume
    ema = Ema(student)
    if resume:
        loaded = torch.load(checkpoint, map_location="cpu")
        student.load_state_dict(loaded["student"])
        ema.model.load_state_dict(loaded["ema"])
        ema.steps = loaded["ema_steps"]
        optimiser.load_state_dict(loaded["optimiser"])
        state = {key: loaded[key] for key in state}
    lessons = Lessons(work, detectors, seed)
    student.to(memory_format=torch.channels_last)
    train_mode(student)
    spread = [h.float().pow(2).mean().sqrt() for h in lessons.batch()["hints"]]
    budget, saved, first, sums = minutes * 60, time.time(), state["steps"], {}
    while (spent := time.time() - started) < budget:
        for group in optimiser.param_groups:
            group["lr"] = rate(spent / budget, peak)
        if shipped is not None and spent < SETTLING:
            for group, share in zip(optimiser.param_groups, (0.0, 0.0, 1.0)):
                group["lr"] = peak * share
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
