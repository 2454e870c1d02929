"""Puts Home Assistant into a virtual environment of its own, where it is not there yet."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

# The newest for Debian 12's Python.
VERSION = "2024.3.3"
PYTHON = (3, 11)

# What it loads here, of its own accord or because it is asked to. It would fetch what they need when it starts; pip does it
# before, once.
INTEGRATIONS = (
    "analytics api backup camera config energy file_upload frontend history http image image_upload logbook mqtt onboarding "
    "person recorder repairs stream system_log websocket_api"
).split()


def install(venv: Path) -> Path:
    """The program to start."""
    done = venv / "complete"
    if done.exists() and done.read_text() == VERSION:
        return venv / "bin/hass"
    if sys.version_info[:2] != PYTHON:
        raise SystemExit(
            f"Home Assistant {VERSION} is for Python {PYTHON[0]}.{PYTHON[1]}, and this is {sys.version.split()[0]}; run this "
            "by another, or name another Home Assistant with --hass"
        )
    print(f"installing Home Assistant {VERSION} into {venv}", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    # josepy's second version came later, and what it needs was written for the first one.
    pip(venv, f"homeassistant=={VERSION}", "josepy<2")
    package = next(venv.glob("lib/python3.*/site-packages/homeassistant"))
    pip(venv, *sorted(requirements(package / "components")), "--constraint", str(package / "package_constraints.txt"))
    done.write_text(VERSION)
    return venv / "bin/hass"


def pip(venv: Path, *packages: str) -> None:
    command = [venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *packages]
    subprocess.run(command, check=True)


def requirements(components: Path) -> set[str]:
    """What the integrations and those they are built on say that they need."""
    found: set[str] = set()
    seen: set[str] = set()
    ahead = list(INTEGRATIONS)
    while ahead:
        name = ahead.pop()
        manifest = components / name / "manifest.json"
        if name in seen or not manifest.exists():
            continue
        seen.add(name)
        said = json.loads(manifest.read_text())
        found.update(said.get("requirements", []))
        ahead += said.get("dependencies", [])
    return found
