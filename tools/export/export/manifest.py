"""model.toml: what the daemon needs to know of a folder, and what it vouches for."""

import hashlib
import json
import re
from pathlib import Path

from .errors import Refused

CHUNK = 1 << 20


def value(v):
    """A TOML value. JSON's strings are TOML's basic strings."""
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (list, tuple)):
        return "[" + ", ".join(value(e) for e in v) + "]"
    if isinstance(v, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {value(e)}" for k, e in v.items()) + " }"
    if isinstance(v, float):
        return repr(v)
    return json.dumps(v, ensure_ascii=False)


def digest(path):
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            found.update(piece)
    return found.hexdigest()


def files(folder, roles):
    """The graphs, the weights that lie beside them, and the vocabulary, in a fixed order."""
    for role in roles:
        yield role, f"{role}.onnx"
        if (folder / f"{role}.onnx_data").is_file():
            yield f"{role}_data", f"{role}.onnx_data"
    if (folder / "tokenizer.json").is_file():
        yield "vocabulary", "tokenizer.json"


def named(name):
    """The name, if the daemon takes it for one."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise Refused(f"the name `{name}` should be 1 to 64 ASCII letters, digits, `-`, `_` or `.`; pass --name")
    return name


def write(folder, head, sections, roles):
    """Writes model.toml for what lies in `folder`."""
    lines = [f"{key} = {value(v)}" for key, v in head.items()]
    for section, entries in sections.items():
        lines += ["", f"[{section}]", *(f"{key} = {value(v)}" for key, v in entries.items())]
    for role, name in files(folder, roles):
        path = Path(folder) / name
        lines += ["", "[[files]]", f"role = {value(role)}", f"path = {value(name)}",
                  f"bytes = {path.stat().st_size}", f'sha256 = "{digest(path)}"']
    (folder / "model.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
