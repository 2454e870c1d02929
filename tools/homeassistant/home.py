"""A Home Assistant of nobody: its configuration, and what it answers to those who ask by HTTP."""

import base64
import hashlib
import hmac
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from lab import Lab

LOG = "home-assistant"
# Of the entries in its settings; templates know the entry by it.
BROKER = "broker"
TEN_YEARS = 10 * 365 * 86400

# What goes wrong while it handles a message or an entity, it tells in the name of many of its parts.
CONCERNS = r"groundd|mqtt|\[homeassistant\]|helpers\.(entity|template|event)|(binary_sensor|sensor|image)\b|[Ee]ntity"
CONNECTION = r"Disconnected from MQTT server|Failed to connect to MQTT server|The connection was lost"

CONFIGURATION = """
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
websocket_api:
repairs:
"""


class Home:
    def __init__(self, lab: Lab, command: list[str]) -> None:
        self.lab = lab
        self.command = command
        self.address = f"http://127.0.0.1:{lab.home_port}"
        self.folder = lab.folder / "config"
        self.seen: set[str] = set()
        (self.folder / ".storage").mkdir(parents=True)
        (self.folder / "configuration.yaml").write_text(CONFIGURATION.format(port=lab.home_port))
        self.token = self.settle_in()

    def start(self) -> None:
        # What it needs is there; it is not to look for more.
        self.lab.start(LOG, *self.command, "--config", self.folder, "--skip-pip", "--log-no-color")
        self.lab.until(self.running, "Home Assistant is not up", 240)

    def stop(self) -> None:
        self.lab.stop(LOG)

    def running(self) -> bool:
        try:
            return json.loads(self.get("/api/config")[1])["state"] == "RUNNING"
        except OSError:
            return False

    def state(self, entity: str) -> str:
        return self.entity(entity).get("state", "absent")

    def name(self, entity: str) -> str:
        return self.entity(entity)["attributes"]["friendly_name"]

    def picture(self, entity: str) -> tuple[str, bytes]:
        """Its type and content, as a browser is shown it."""
        return self.get(self.entity(entity)["attributes"]["entity_picture"])

    def entities(self) -> list[str]:
        """Those that were registered."""
        return self.render("{{ integration_entities('%s') | sort | list | to_json }}" % BROKER)

    def devices(self) -> list[str]:
        """Names of the devices, also of those that have no entity any more."""
        self.seen.update(self.render("{{ integration_entities('%s') | map('device_id') | unique | list | to_json }}" % BROKER))
        names = [self.render("{{ device_attr('%s', 'name') | to_json }}" % device) for device in self.seen]
        return sorted(name for name in names if name)

    def complaints(self) -> list[str]:
        """Warnings and errors about entities and messages, with the lines that belong to them, but for broken connections."""
        log = self.lab.log(LOG).read_text(errors="replace")
        records = re.split(r"^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} )", log, flags=re.MULTILINE)
        serious = [record.strip() for record in records if re.match(r"\S+ \S+ (WARNING|ERROR|CRITICAL) ", record)]
        return [record for record in serious if re.search(CONCERNS, record) and not re.search(CONNECTION, record)]

    def entity(self, entity: str) -> dict:
        try:
            return json.loads(self.get(f"/api/states/{entity}")[1])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return {}

    def render(self, template: str):
        return json.loads(self.get("/api/template", {"template": template})[1])

    def get(self, path: str, body: dict | None = None) -> tuple[str, bytes]:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.token}"})
        if body is not None:
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read()

    def settle_in(self) -> str:
        """Writes what its first page would ask for: an owner, whose token this returns, and the broker."""
        key, token = "k" * 128, "r" * 32
        self.store("onboarding", 4, {"done": ["user", "core_config", "integration", "analytics"]})
        broker = {"broker": "127.0.0.1", "port": self.lab.broker_port, "discovery": True, "discovery_prefix": "homeassistant"}
        entry = {"entry_id": "e" * 32, "version": 1, "domain": "mqtt", "title": BROKER, "source": "user", "unique_id": None}
        entry |= {"data": broker, "options": {}, "disabled_by": None}
        entry |= {"pref_disable_new_entities": False, "pref_disable_polling": False}
        self.store("core.config_entries", 1, {"entries": [entry]})
        owner = {"id": "u" * 32, "group_ids": ["system-admin"], "name": "owner", "is_owner": True, "is_active": True}
        owner |= {"system_generated": False, "local_only": False}
        access = {"id": token, "user_id": owner["id"], "client_id": None, "client_name": "check", "client_icon": None}
        access |= {"token_type": "long_lived_access_token", "created_at": "2024-03-01T00:00:00+00:00", "token": "t" * 128}
        access |= {"access_token_expiration": float(TEN_YEARS), "jwt_key": key, "last_used_at": None, "last_used_ip": None}
        access |= {"credential_id": None, "version": None}
        groups = [{"id": "system-admin", "name": "Administrators"}]
        self.store("auth", 1, {"users": [owner], "groups": groups, "credentials": [], "refresh_tokens": [access]})
        return signed({"iss": token, "iat": int(time.time()), "exp": int(time.time()) + TEN_YEARS}, key)

    def store(self, name: str, version: int, data: dict) -> None:
        file = {"version": version, "minor_version": 1, "key": name, "data": data}
        (self.folder / ".storage" / name).write_text(json.dumps(file))


def signed(claims: dict, key: str) -> str:
    """A JSON Web Token."""
    said = f'{encoded(json.dumps({"alg": "HS256", "typ": "JWT"}))}.{encoded(json.dumps(claims))}'
    return f"{said}.{encoded(hmac.digest(key.encode(), said.encode(), hashlib.sha256))}"


def encoded(data: str | bytes) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
