"""The second part of training works on what the finished image side sees: scenes are looked at once, and asked about many times."""

import hashlib
import pickle
import time

import cv2
import numpy as np
import torch

from . import compose, restore, samples
from .distil import new_sampler
from .vision import Vision

NEAR, FAR = 192, 128  # cells kept of every scene for the detection head: the most object-like ones, and others by chance
CHUNK = 256           # scenes a file


def load_vision(work):
    vision = Vision()
    vision.load_state_dict(torch.load(work / "vision.pt", map_location="cpu")["vision"])
    return vision.eval()


@torch.no_grad()
def look(vision, frames, rng):
    """One dictionary a frame: what the language side needs of the picture, and the labels to make queries from."""
    pixels = torch.stack([torch.from_numpy(np.ascontiguousarray(f.image[..., ::-1])) for f in frames])
    maps, heat, places, _, boxes, objectness, (seen, kind, colours) = vision.look(pixels)
    cells = torch.cat([m.flatten(2) for m in maps], 2)
    scenes = []
    for i, frame in enumerate(frames):
        best = heat[i].topk(NEAR).indices
        chosen = torch.cat([best, torch.from_numpy(rng.integers(heat.shape[1], size=FAR))])
        scenes.append({
            "seen": seen[i].half(), "kind": kind[i].half(), "colours": colours[i].half(), "boxes": boxes[i], "objectness": objectness[i],
            "cells": cells[i, :, chosen].half(), "places": places[i, :, chosen], "heat": heat[i, chosen].half(),
            "scene": samples.scene_of(frame), "ignored": frame.ignored,
        })
    return scenes


def worker(work, folder, seed, count):
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    vision, sampler = load_vision(work), new_sampler(work, 7000 + seed)
    sampler.drawn, sampler.pasted = 0.22, 0.32
    for chunk in range(-(-count // CHUNK)):
        path = folder / f"{seed}-{chunk:03d}.pkl"
        if path.exists():
            continue
        # Each by itself: after others that were there already it would show what they show.
        sampler.rng, rng = np.random.default_rng([7000 + seed, chunk]), np.random.default_rng([seed, chunk])
        scenes = []
        while len(scenes) < CHUNK:
            scenes += look(vision, [sampler.scene() for _ in range(8)], rng)
        partial = path.with_suffix(".partial")
        partial.write_bytes(pickle.dumps(scenes))
        partial.rename(path)


def build(work, count, shipped=None, seed=0, processes=2):
    """Looks at `count` scenes, `processes` at a time; resumes where it was cut off. Looks with what `distil` made, or with the image
    side of `shipped`, a folder of ONNX files; another `seed` shows others."""
    if shipped is not None:
        torch.save({"vision": restore.shipped(shipped).vision.state_dict()}, work / "vision.pt")
    folder = folder_of(work)
    folder.mkdir(parents=True, exist_ok=True)
    compose.make_pool(work / "sprites.npy")  # here, lest both draw it at once
    started = time.time()
    torch.multiprocessing.spawn(start_worker, (work, folder, seed * processes, count // processes), nprocs=processes)
    print(f"{count} scenes in {time.time() - started:.0f} s", flush=True)


def start_worker(rank, work, folder, first, count):
    worker(work, folder, first + rank, count)


def folder_of(work):
    """Where the scenes lie that the image side as it is now has looked at: what an earlier one made of them is of no use to it."""
    return work / "scenes" / hashlib.sha256((work / "vision.pt").read_bytes()).hexdigest()[:12]


def load(work):
    found = [scene for path in sorted(folder_of(work).glob("*.pkl")) for scene in pickle.loads(path.read_bytes())]
    if not found:
        raise SystemExit("this image side has looked at no scenes yet; run `scenes` first")
    return found
