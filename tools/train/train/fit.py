"""The training run: two processes of one thread each, gradients averaged by hand.

One process of two threads collapses when anything else wants a core: OpenMP waits at every operator. Two processes
wait for each other once a step. The schedule follows the wall clock, so a run ends annealed whatever the machine did.
"""

import copy
import json
import math
import os
import time

import torch
import torch.distributed as dist

from . import compose, losses
from .data import HELD_OUT_VIDEOS
from .export import new_model
from .samples import Sampler
from .vision import silence_context

BATCH = 6             # a process
RATE = 1.6e-3
DECAY = 0.02
CLIP = 2.0
WARMUP = 0.03
LABELS_HELP = 12000   # images over which labelled boxes give way to the network's own proposals
SETTLED = 30000       # images after which the batch norms keep their statistics, so that training sees what inference does
SAVE_EVERY = 150      # seconds


def rate(progress, peak):
    """Cosine over elapsed time, warm-up first."""
    if progress < WARMUP:
        return peak * max(progress / WARMUP, 0.02)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARMUP) / (1 - WARMUP)))))


class Ema:
    """Averaged weights; they are what is measured and shipped. Starts quickly, then averages over ~500 steps."""

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


def freeze_norms(model):
    """Six mixed pictures a batch are not what one camera shows; the last part of a run learns on the averages instead."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def stack(samples):
    return {key: torch.stack([torch.from_numpy(s[key]) for s in samples]) for key in samples[0]}


def average_gradients(model, world):
    for parameter in model.parameters():  # a batch without colours, say, leaves some untouched in one process only
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world
    for grad, part in zip(grads, flat.split([g.numel() for g in grads])):
        grad.copy_(part.view_as(grad))


def save(path, model, ema, optimiser, state):
    partial = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "ema": ema.model.state_dict(), "ema_steps": ema.steps,
                "optimiser": optimiser.state_dict(), **state}, partial)
    partial.rename(path)


def groups(model):
    """No decay on norms, biases and embeddings."""
    decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and "words" not in n]
    plain = [p for n, p in model.named_parameters() if p.ndim < 2 or "words" in n]
    return [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]


def worker(rank, world, work, minutes, resume, peak, started, context, every_video):
    import cv2
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ.get("MASTER_PORT", "29541"))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cv2.setRNGSeed(rank)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = new_model()
    ema = Ema(model)
    optimiser = torch.optim.AdamW(groups(model), lr=peak, betas=(0.9, 0.98))
    state = {"steps": 0, "images": 0, "seconds": 0.0}
    checkpoint = work / "last.pt"
    if resume and checkpoint.exists():
        loaded = torch.load(checkpoint, map_location="cpu")
        model.load_state_dict(loaded["model"])
        ema.model.load_state_dict(loaded["ema"])
        ema.steps = loaded["ema_steps"]
        optimiser.load_state_dict(loaded["optimiser"])
        state = {key: loaded[key] for key in state}
    if not context:
        silence_context(model)
        silence_context(ema.model)
    records = [r for r in json.loads((work / "data/index.json").read_text())
               if r["split"] == "train" or (every_video and r["source"] in HELD_OUT_VIDEOS)]
    sampler = Sampler(work / "data", records, compose.make_pool(work / "sprites.npy"), 1000 * rank + state["steps"])
    torch.manual_seed(rank)
    model.vision.to(memory_format=torch.channels_last)
    model.train()
    budget, saved, before = minutes * 60, time.time(), state["seconds"]
    sums, first = {}, state["steps"]
    while True:
        spent = torch.tensor([time.time() - started])
        dist.broadcast(spent, 0)  # one clock, or the processes would stop at different steps
        progress = float(spent) / budget
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate(progress, peak)
        if state["images"] >= SETTLED:
            freeze_norms(model)
        batch = stack([sampler.sample() for _ in range(BATCH)])
        real_share = 0.3 + 0.6 * max(0.0, 1 - state["images"] / LABELS_HELP)
        loss, parts = losses.total(model, batch, real_share)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(model, world)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        if torch.isfinite(norm):
            optimiser.step()
        state["steps"] += 1
        state["images"] += BATCH * world
        state["seconds"] = before + float(spent)
        if rank == 0:
            ema.update(model)
            for name, value in {"loss": float(loss.detach()), **parts}.items():
                sums[name] = sums.get(name, 0.0) + value / 50
            if state["steps"] % 50 == 0:
                speed = (state["steps"] - first) * BATCH * world / float(spent)
                print(f"{float(spent)/60:6.1f} min  step {state['steps']}  {speed:.1f} img/s  "
                      + " ".join(f"{k} {v:.3f}" for k, v in sums.items()), flush=True)
                sums = {}
            if time.time() - saved > SAVE_EVERY:
                save(checkpoint, model, ema, optimiser, state)
                saved = time.time()
    if rank == 0:
        save(checkpoint, model, ema, optimiser, state)
    dist.destroy_process_group()


def fit(work, minutes, resume=False, peak=RATE, context=True, every_video=False, processes=2):
    """Trains for `minutes`; `resume` goes on from last.pt with a fresh schedule; `every_video` takes the held-out ones too."""
    compose.make_pool(work / "sprites.npy")
    torch.multiprocessing.spawn(worker, (processes, work, minutes, resume, peak, time.time(), context, every_video), nprocs=processes)
