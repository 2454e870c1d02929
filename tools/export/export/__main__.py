"""`python -m export`: FAMILY CHECKPOINT_DIR OUT_DIR, or selftest, or fixtures."""

import argparse
import sys

import torch
import transformers

from . import convert
from .errors import Refused
from .families import FAMILIES, WRITERS


def size(text):
    width, height = text.split("x")
    return int(width), int(height)


def arguments():
    parser = argparse.ArgumentParser(prog="python -m export", description="Real checkpoints to groundd's ONNX folders.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, family in FAMILIES.items():
        one = commands.add_parser(name, help=f"export a {name} checkpoint, as {family.hub_example}")
        one.add_argument("checkpoint", help="the checkpoint's folder")
        one.add_argument("out", help="the folder to write; must not exist")
        one.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32", help="of weights and cache")
        one.add_argument("--weights", choices=("int8", "int4"), help="quantise the language model's weights")
        one.add_argument("--name", help="the model's name in messages; default is the folder's")
        one.add_argument("--version", default="1", help="the model's version, for people")
        one.add_argument("--licence", help="of the weights; default is what the checkpoint's card says")
        one.add_argument("--image", type=size, help="width and height of the model's picture, as in 1333x750, for "
                         "grounding-dino and deformable-detr; default is the longest by the shortest side")
        one.add_argument("--proposer", default="nano", help="where regions come from, for models that rank them: a model's "
                         "name, or a folder relative to the one written")
        one.add_argument("--provenance", help="where the weights come from; default is the checkpoint folder's name")
    test = commands.add_parser("selftest", help="export small random checkpoints of every kind, and check them")
    test.add_argument("--family", choices=FAMILIES, help="only this one")
    made = commands.add_parser("fixtures", help="write the fixtures of groundd's own tests")
    made.add_argument("out", help="the folder to write; what this command wrote there before is replaced")
    held = commands.add_parser("parity", help="write what `make parity` holds groundd against")
    held.add_argument("out", help="the folder to write; it is replaced")
    held.add_argument("--clip", required=True, help="a film to take pictures from")
    held.add_argument("--family", choices=WRITERS, help="only this one")
    made = commands.add_parser("head-fixtures", help="write the fixtures of groundd's tests of scored boxes")
    made.add_argument("out", help="the folder with the pictures and the detector yolox, as its make.py leaves it")
    made.add_argument("--only", help="one of the folders")
    made.add_argument("--more", action="store_true", help="of the sizes that are not kept, instead")
    made = commands.add_parser("region-fixtures", help="write the fixtures of groundd's tests of models that name regions")
    made.add_argument("out", help="the folder with the pictures and the detector yolox")
    made.add_argument("--only", help="one of the folders")
    made.add_argument("--more", action="store_true", help="of the sizes that are not kept, instead")
    told = commands.add_parser("openseed-reference", help="hold OpenSeeD's head against LLaVA-Grounding's own code")
    told.add_argument("clone", help="a clone of LLaVA-Grounding")
    told.add_argument("--detectron2", help="a clone of detectron2, if it is not installed; it need not be built")
    told.add_argument("--full", action="store_true", help="at the published size, which takes minutes")
    told.add_argument("--write", action="store_true", help="what the self-test holds the head against")
    return parser.parse_args()


def main():
    given = arguments()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        if given.command == "selftest":
            from . import selftest
            selftest.run([given.family] if given.family else list(FAMILIES))
        elif given.command == "fixtures":
            from . import fixtures
            fixtures.write(given.out)
        elif given.command == "parity":
            from . import parity
            parity.write(given.out, given.clip, [given.family] if given.family else list(WRITERS))
        elif given.command == "head-fixtures":
            from . import heads_fixtures
            heads_fixtures.write(given.out, more=given.more, only=given.only)
        elif given.command == "region-fixtures":
            from . import fo1_fixtures
            fo1_fixtures.write(given.out, more=given.more, only=given.only)
        elif given.command == "openseed-reference":
            from . import openseed_reference
            openseed_reference.run(given.clone, given.detectron2, given.full, given.write)
        else:
            options = convert.Options(
                given.dtype, given.weights, given.name, given.version, given.licence, given.provenance,
                given.proposer, given.image)
            convert.export(FAMILIES[given.command], given.checkpoint, given.out, options)
    except Refused as e:
        print(f"export: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
