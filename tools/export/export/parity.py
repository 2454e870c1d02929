"""What `make parity` holds the daemon's runtime against: small models of every kind, exported, and all that transformers says
of them on real and awkward pictures; in the other forms of weights, what ONNX Runtime says in Python.

    DIR/pictures/NAME.png
    DIR/FAMILY-NUMBER[-FORM]/   as `fixtures` writes a family: model/, cases.json, tensors.safetensors
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from . import convert, fixtures
from .families import WRITERS
from .selftest import FORMS, KINDS

# Frames of the clip: second, size they are scaled to. Between them: the clip's own size, a thumbnail, odd sides, a side that is
# halfway between two patches, a column and a ribbon of the picture, and less than a patch.
FRAMES = {
    "frame": (1.0, None), "small": (4.0, (426, 240)), "odd": (7.0, (333, 187)), "ties": (10.0, (70, 42)),
    "column": (13.0, (61, 411)), "ribbon": (16.0, (701, 5)), "speck": (2.0, (9, 7)),
}
MADE = {"noise": (131, 97), "slope": (224, 224)}
# Tokens a picture may have: enough for the sizes above to differ.
TOKENS = (4, 48)
MARGIN = 1e-4


def frame(clip, second):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.png"
        subprocess.run(["ffmpeg", "-loglevel", "error", "-ss", str(second), "-i", str(clip), "-frames:v", "1", str(path)],
                       check=True)
        return Image.open(path).convert("RGB").copy()


def pictures(clip):
    shown = {}
    for name, (second, size) in FRAMES.items():
        one = frame(clip, second)
        shown[name] = one if size is None else one.resize(size, Image.Resampling.BILINEAR)
    return shown | {name: fixtures.picture(*size, seed) for seed, (name, size) in enumerate(MADE.items())}


def widen(checkpoint):
    """Lets a Qwen see more than the few tokens of the small checkpoints."""
    path = checkpoint / "preprocessor_config.json"
    told = json.loads(path.read_text())
    if "patch_size" not in told:
        return
    least, most = (count * (2 * told["patch_size"]) ** 2 for count in TOKENS)
    if "size" in told:
        told["size"] = {"shortest_edge": least, "longest_edge": most}
    else:
        told |= {"min_pixels": least, "max_pixels": most}
    path.write_text(json.dumps(told))


def one(family, number, kind, options, make, wish, out, say):
    with tempfile.TemporaryDirectory() as scratch:
        variety, checkpoint, (listed, tensors) = fixtures.clear(family, make, options, wish, Path(scratch), widen)
        folder = out / f"{family.name}-{number}"
        folder.mkdir()
        report = convert.export(family, checkpoint, folder / "model", convert.Options(), say=lambda _: None)
        fixtures.tell(folder, family, listed, tensors)
        say(f"{folder.name} ({kind}): {len(listed)} cases, {variety} different tokens in {fixtures.STEPS} steps; "
            f"{report.line()}")
        if number:
            return
        source, model, tokenizer = fixtures.read(family, checkpoint)
        for form, how in FORMS.items():
            folder = out / f"{family.name}-{number}-{form.replace(', ', '-')}"
            folder.mkdir()
            report = convert.export(family, checkpoint, folder / "model", convert.Options(**how), say=lambda _: None)
            # Close calls are as likely here, but these weights are not to be chosen: ONNX Runtime runs the same graphs.
            found = fixtures.answers(family, model, tokenizer, source, wish, family.runner(folder / "model"))
            if found is None:
                shutil.rmtree(folder)
                say(f"{folder.name}: left out, two of its answers' logits are closer than {wish.margin}")
                continue
            fixtures.tell(folder, family, *found)
            say(f"{folder.name}: {report.line()}")


def write(out, clip, names, say=print):
    """Everything `make parity` reads, into `out`, which is replaced."""
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    (out / "pictures").mkdir(parents=True)
    shown = pictures(clip)
    for name, picture in shown.items():
        picture.save(out / "pictures" / f"{name}.png")
    cases = {name: [name] for name in shown} | {"two": ["odd", "column"]}
    wish = fixtures.Wish(shown, cases, tuple(cases), fixtures.STEPS, MARGIN)
    for name in names:
        family, (make, kinds) = WRITERS[name], KINDS[name]
        for number, (kind, options) in enumerate(kinds.items()):
            one(family, number, kind, options, make, wish, out, say)
