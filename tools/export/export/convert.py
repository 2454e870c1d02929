"""One checkpoint to one folder: load, ask torch, trace, ask ONNX Runtime, and only then leave anything behind."""

import gc
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import blocks, manifest, onnx_files
from .checkpoint import Source
from .errors import Refused

BITS = {None: None, "int8": 8, "int4": 4}
WIDTHS = {"fp32": 4, "fp16": 2}


@dataclass
class Options:
    """How to export, and what the checkpoint's card leaves out."""

    dtype: str = "fp32"
    weights: str | None = None
    name: str | None = None
    version: str = "1"
    licence: str | None = None
    provenance: str | None = None
    proposer: str = "nano"
    image: tuple | None = None


def export(family, checkpoint, out, options, say=print):
    """Writes `out`, or raises Refused and leaves nothing there. Returns the check's report."""
    checkpoint, out = Path(checkpoint), Path(out)
    if out.exists():
        raise Refused(f"{out}: exists already; remove it, or name another folder")
    source = Source(checkpoint, family.reads, family.eye)
    family.image = options.image
    found = source.config.get("model_type")
    if found != family.model_type:
        raise Refused(f"{checkpoint / 'config.json'}: is a `{found}` checkpoint and {family.name} are "
                      f"`{family.model_type}`, as in {family.hub_example}")
    if not family.writes and (options.dtype != "fp32" or options.weights):
        raise Refused(f"--dtype, --weights: {family.name} is exported in single precision only")
    if options.image and not family.sized:
        raise Refused(f"--image: the size of {family.name}'s pictures follows from the checkpoint; leave --image out")
    # What can be refused is refused before hours of work.
    name = manifest.named(options.name or out.name)
    ends = {"end": source.ends()} if family.writes and family.reads else {}
    licence = options.licence or source.licence()
    provenance = options.provenance or f"exported from the checkpoint folder {checkpoint.resolve().name}"
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        say(f"{family.name}: loading {checkpoint}")
        model = family.load(checkpoint)
        onnx_files.fits(model, checkpoint, WIDTHS[options.dtype])
        model = family.prepare(model, source)
        cases = family.cases(model)
        say(f"asking transformers ({len(cases)} prompts)")
        expected = {case.name: family.reference(model, case) for case in cases}
        sections = family.settings(model, source)
        if "proposer" in sections:
            sections["proposer"] |= {"model": options.proposer}
        if options.dtype == "fp16":
            blocks.halve(family.halved(model))
        roles = []
        for graph in family.graphs(model):
            say(f"tracing {graph.role}")
            onnx_files.write(graph, scratch, BITS[options.weights])
            roles.append(graph.role)
            del graph
        del model
        gc.collect()
        say("checking against ONNX Runtime")
        report = family.verify(scratch, cases, expected, options.weights or options.dtype, options.dtype)
        say(report.line())
        if family.reads:
            shutil.copyfile(checkpoint / "tokenizer.json", scratch / "tokenizer.json")
            sections["tokens"] = {"vocabulary": "tokenizer.json", **ends, **sections["tokens"]}
        head = {"name": name, "version": options.version, "family": family.name,
                "methods": list(family.methods), "licence": licence, "provenance": provenance}
        if "decoder" in sections:
            sections["decoder"] |= {"cache": options.dtype, "weights": options.weights or options.dtype}
        manifest.write(scratch, head, sections, roles)
        # The daemon runs as a user of its own, and what was made in a private folder is private.
        os.chmod(scratch, 0o755)
        for path in scratch.iterdir():
            os.chmod(path, 0o644)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"{out}: written")
    return report
