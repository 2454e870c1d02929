"""What is around Home Assistant: a broker, cameras, the daemon. All on loopback, in a folder that goes when the lab closes."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
FILM = ROOT / "assets/demo.mp4"
CAMERAS = ("gate", "red")

Query = dict[str, object]


class Broken(Exception):
    """There is no point in going on."""


class Lab:
    """Every process is ended by its own id, whatever happens in between."""

    def __init__(self, groundd: Path) -> None:
        self.groundd = groundd
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.broker_port, self.home_port, *cameras = free_ports(2 + len(CAMERAS))
        self.ports = dict(zip(CAMERAS, cameras))
        self.folder = Path(tempfile.mkdtemp(prefix="groundd-home-assistant-"))

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A second Ctrl-C would leave behind what the first one ends.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for process in self.running.values():
            process.terminate()
        for name in list(self.running):
            self.stop(name)
        shutil.rmtree(self.folder)

    def start(self, name: str, *command: str | Path) -> None:
        """Starts a process with a log of its own."""
        inherited = dict(os.environ)
        # ONNX Runtime would tell its maker about each start.
        inherited["ORT_DISABLE_TELEMETRY"] = "1"
        inherited.setdefault("ORT_DYLIB_PATH", str(ROOT / ".runtime/onnxruntime/lib"))
        with self.log(name).open("ab") as log:
            # The input stays open, because a camera plays until it ends. Ctrl-C is for this program alone.
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=inherited, cwd=self.folder, start_new_session=True
            )

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        process = self.running.pop(name)
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            assert process.stdin
            process.stdin.close()

    def kill(self, name: str) -> None:
        """As a power cut would: nobody says goodbye."""
        self.stop(name, signal.SIGKILL)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def last_words(self) -> str:
        """The ends of all logs."""
        logs = [(log.stem, log.read_text(errors="replace").splitlines()[-30:]) for log in sorted(self.folder.glob("*.log"))]
        return "\n".join(f"--- {name}:\n" + "\n".join(lines) for name, lines in logs if lines)

    def alive(self) -> None:
        for name, process in self.running.items():
            if process.poll() is not None:
                raise Broken(f"{name} ended by itself, with {process.returncode}")

    def broker(self) -> None:
        """An empty one: it keeps nothing when it ends."""
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if not program:
            raise Broken("there is no mosquitto here; `make setup` installs it")
        self.start("broker", program, "-c", config)
        self.listening(self.broker_port)

    def camera(self, name: str) -> None:
        self.start(name, self.groundd, "play", FILM, "--port", str(self.ports[name]))
        self.listening(self.ports[name])

    def daemon(self) -> None:
        self.start("groundd", self.groundd, "run", "--config", self.folder / "groundd.toml")

    def configure(self, *queries: Query, cameras: tuple[str, ...] = CAMERAS) -> None:
        """Writes the daemon's file; one that runs takes it at once."""
        lines = ["[model]", f"path = {json.dumps(str(ROOT / 'models/nano'))}"]
        lines += ["[mqtt]", f'url = "mqtt://127.0.0.1:{self.broker_port}"', 'discovery_prefix = "homeassistant"']
        lines += ["snapshot_seconds = 2.0", f"spool_dir = {json.dumps(str(self.folder / 'spool'))}"]
        for name in cameras:
            lines += ["[[camera]]", f'id = "{name}"', f'uri = "rtsp://127.0.0.1:{self.ports[name]}/camera"', "fps = 4.0"]
        for query in queries:
            # Strings, lists and booleans look the same in JSON and TOML.
            lines += ["[[query]]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in query.items())]
        (self.folder / "groundd.toml").write_text("\n".join(lines) + "\n")
        if "groundd" in self.running:
            self.running["groundd"].send_signal(signal.SIGHUP)

    def listening(self, port: int) -> None:
        self.until(lambda: connects(port), f"nobody listens at port {port}")

    def until(self, ready: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not ready():
            self.alive()
            if time.monotonic() > end:
                raise Broken(f"{otherwise} after {seconds:.0f} s")
            time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Below those that the system gives to connections: a port must still be free when its server comes back."""
    ports: list[int] = []
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise Broken("no free ports")


def connects(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
