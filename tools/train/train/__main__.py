"""Command line: `python -m train all --data DIR`, or one step of it."""

import argparse
import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that spin while they wait take the teacher's core

import cv2
import torch

from . import clips, data, distil, evaluate, export, fit, heldout, quantise, scenes
from .render import demo

ROOT = Path(__file__).resolve().parents[3]
CLIP = ROOT / "assets/demo.mp4"
PROVENANCE = ("trained from scratch by tools/train on COCO 2017 images, night dashcam images, a street camera, frames of public sample videos and drawn "
              "scenes, with ready-made detectors as teachers; see MODEL_CARD.md")
STEPS = ("data", "distil", "scenes", "fit", "evaluate", "heldout", "clips", "export", "demo")


def load(path):
    """The averaged weights of a checkpoint."""
    model = export.new_model()
    saved = torch.load(path, map_location="cpu")
    model.load_state_dict(saved["ema"])
    return model.eval(), saved


def measure(work):
    """Quick figures for the selection, and its bar; `groundd eval` measures what ships, by every method."""
    model, saved = load(work / "last.pt")
    result, scores = evaluate.evaluate(model, work, CLIP)
    print(f"{saved['queries']} queries seen; thresholds {scores}\n{evaluate.table(result)}", flush=True)
    (work / "measured.json").write_text(json.dumps({"scores": scores, "report": result}, indent=1))
    return model, scores


def main():
    parser = argparse.ArgumentParser(prog="python -m train")
    parser.add_argument("step", choices=("all", *STEPS))
    parser.add_argument("--data", type=Path, help="labelled images, videos and teacher detectors (see README.md)")
    parser.add_argument("--work", type=Path, default=ROOT / ".runtime/train", help="where frames and checkpoints are kept")
    parser.add_argument("--minutes", type=float, help=f"length of a training step; default {distil.MINUTES} for distil, {fit.MINUTES} for fit")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, with a fresh schedule")
    parser.add_argument("--from-shipped", action="store_true", help="start from the ONNX files in --out instead of from nothing")
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="which lessons; another one when going on from files that were trained before")
    parser.add_argument("--scenes", type=int, default=10240, help="scenes that the language side learns from")
    parser.add_argument("--out", type=Path, default=ROOT / "models/nano")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    work, step, seed = arguments.work, arguments.step, arguments.seed
    shipped = arguments.out if arguments.from_shipped else None
    if step in ("all", "data", "distil", "clips") and arguments.data is None:
        parser.error("--data is needed for the frames and the teachers")
    if step in ("all", "data"):
        data.build(arguments.data, work / "data")
    if step in ("all", "distil"):
        minutes, peak = arguments.minutes or distil.MINUTES, arguments.rate or distil.RATE
        distil.distil(work, arguments.data / "detectors", minutes, arguments.resume, peak, shipped, seed)
    if step in ("all", "scenes"):
        scenes.build(work, arguments.scenes, shipped if step == "scenes" else None, seed)
    if step in ("all", "fit"):
        fit.fit(work, arguments.minutes or fit.MINUTES, arguments.resume, arguments.rate or fit.RATE, shipped, seed)
    if step in ("all", "heldout"):
        heldout.write(work, work / "heldout")
    if step in ("all", "clips"):
        clips.write(arguments.data, work / "clips")
    if step == "evaluate":
        measure(work)
    if step in ("all", "export"):
        model, scores = measure(work)
        print("largest difference between torch and the exported graphs:", export.export(model, arguments.out, PROVENANCE, scores))
        quantise.quantise(work, arguments.out, PROVENANCE, scores)
    if step == "demo":
        if shutil.which("ffmpeg") is None:
            parser.error("ffmpeg with libx264 is needed to write the clip")
        demo.render(CLIP, work / "demo.json")


if __name__ == "__main__":
    main()
