"""Command line: `python -m train all --data DIR --minutes N`, or one step of it."""

import argparse
import json
import shutil
from pathlib import Path

import cv2
import torch

from . import data, evaluate, export, fit, vision
from .render import demo

ROOT = Path(__file__).resolve().parents[3]
CLIP = ROOT / "assets/demo.mp4"
PROVENANCE = ("trained from scratch by tools/train on COCO 2017 images, night dashcam images, the Town Centre set, frames of "
              "public sample videos labelled by two detectors, and drawn scenes; see MODEL_CARD.md")


def load(path):
    """The averaged weights of a checkpoint."""
    model = export.new_model()
    saved = torch.load(path, map_location="cpu")
    model.load_state_dict(saved["ema"])
    return model.eval(), saved


def measure(work, checkpoint, context=True):
    model, saved = load(checkpoint)
    if not context:
        vision.silence_context(model)
    result, scores = evaluate.evaluate(model, work, CLIP)
    print(f"{saved['images']} images seen; thresholds {scores}\n{evaluate.table(result)}", flush=True)
    (work / "measured.json").write_text(json.dumps({"scores": scores, "report": result, "images": saved["images"]}, indent=1))
    return model, scores


def ship(work, checkpoint, folder, context=True):
    model, scores = measure(work, checkpoint, context)
    differences = export.export(model, folder, PROVENANCE, scores)
    print("largest difference between torch and the exported graphs:", differences)


def main():
    parser = argparse.ArgumentParser(prog="python -m train")
    parser.add_argument("step", choices=("all", "data", "fit", "evaluate", "export", "demo"))
    parser.add_argument("--data", type=Path, help="labelled images, videos and teacher detectors (see README.md)")
    parser.add_argument("--work", type=Path, default=ROOT / ".runtime/train", help="where frames and checkpoints are kept")
    parser.add_argument("--minutes", type=float, default=60, help="length of the training run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, with a fresh schedule")
    parser.add_argument("--rate", type=float, default=fit.RATE, help="peak learning rate")
    parser.add_argument("--checkpoint", type=Path, help="default: last.pt in the work folder")
    parser.add_argument("--out", type=Path, default=ROOT / "models/nano")
    parser.add_argument("--no-context", dest="context", action="store_false", help="train, measure and ship with the context layer silenced")
    parser.add_argument("--every-video", action="store_true", help="train on the held-out videos too: for shipping, after measuring")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    work, checkpoint = arguments.work, arguments.checkpoint or arguments.work / "last.pt"
    if arguments.step in ("all", "data"):
        if arguments.data is None:
            parser.error("--data is needed to build the frames")
        data.build(arguments.data, work / "data")
    if arguments.step in ("all", "fit"):
        fit.fit(work, arguments.minutes, arguments.resume, arguments.rate, arguments.context, arguments.every_video)
    if arguments.step == "evaluate":
        measure(work, checkpoint, arguments.context)
    if arguments.step in ("all", "export"):
        ship(work, checkpoint, arguments.out, arguments.context)
    if arguments.step == "demo":
        if shutil.which("ffmpeg") is None:
            parser.error("ffmpeg with libx264 is needed to write the clip")
        demo.render(CLIP, work / "demo.json")


if __name__ == "__main__":
    main()
