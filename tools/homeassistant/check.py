"""Runs a real Home Assistant beside groundd, and tells what becomes of its entities whatever happens to everything else.

    python3 tools/homeassistant/check.py [--groundd PATH] [--hass COMMAND]

Takes about a minute, and five more the first time, when Home Assistant is installed into `.runtime/venv-homeassistant` (770 MB).
Needs mosquitto. All of it is on loopback, and whatever else it starts or writes is gone when it ends.

A newer Home Assistant than Debian's Python takes may be anywhere where `COMMAND --config DIR --skip-pip` starts it and ends with
TERM, as in `--hass 'chroot /srv/trixie /venv/bin/hass'`; it must see the temporary folder (`TMPDIR`) at the same place.
"""

import argparse
import shlex
import signal
import sys
import time
from pathlib import Path

from home import Home
from install import install
from lab import ROOT, Broken, Lab
from story import Story

PERSON = {"id": "person", "text": "person"}
RED_CAR = {"id": "red-car", "text": "red car"}
DOG = {"id": "dog", "text": "brown dog", "cameras": ["gate"]}

ON = "on"
OFF = "off"
EITHER = "on|off"
UNAVAILABLE = "unavailable"
ABSENT = "absent"
SOME = "[1-9][0-9]*"
TIME = "[0-9]{4}-.*"

# nano knows the words of the first two alone.
ODD = [
    {"id": "Twin_1-X", "text": "person"},
    {"id": "resting", "text": "person", "paused": True},
    {"id": "zebra", "text": "zebra"},
    {"id": "camera", "text": "gate person"},
    {"id": "signs", "text": """"the" Käfer's <b>Straße</b> / {{ 1+1 }} \\ {% if %}"""},
    {"id": "long", "text": " ".join(["person in a very long red jacket"] * 15)},
    {"id": "chinese", "text": "一个穿着红色夹克的人牵着一条棕色的大狗站在一辆蓝色公共汽车旁边" * 5},
]


def discovery(story: Story, lab: Lab, home: Home) -> None:
    print("Two cameras, three queries")
    lab.broker()
    for camera in lab.ports:
        lab.camera(camera)
    lab.configure(PERSON, RED_CAR, DOG)
    lab.daemon()
    home.start()
    story.becomes("there are people", "binary_sensor.gate_person_present", ON)
    story.becomes("they are counted", "sensor.gate_person_count", SOME)
    story.shows("each camera is a device", home.devices, ["gate", "red"])
    story.shows("each query has three entities on each of its cameras", lambda: len(home.entities()), 15)
    names = dict(zip(entities("gate_person"), ("gate person", "gate person count", "gate person snapshot")))
    story.shows("they are named after both", lambda: {entity: home.name(entity) for entity in names}, names)
    story.becomes("a red car drives away", "binary_sensor.gate_red_car_present", OFF)
    story.becomes("another one comes", "binary_sensor.gate_red_car_present", ON)
    story.shows("there is a picture of a person", lambda: jpeg(home, "image.gate_person_snapshot"), True)


def entities(name: str) -> list[str]:
    return [f"binary_sensor.{name}_present", f"sensor.{name}_count", f"image.{name}_snapshot"]


def jpeg(home: Home, entity: str) -> bool:
    kind, picture = home.picture(entity)
    return kind == "image/jpeg" and picture[:3] == b"\xff\xd8\xff" and picture[-2:] == b"\xff\xd9"


def interruptions(story: Story, lab: Lab, home: Home) -> None:
    print("Whatever goes, and comes back")
    lab.kill("gate")
    story.becomes("a camera dies: nobody knows what is there", "binary_sensor.gate_person_present", UNAVAILABLE)
    story.becomes("the other one goes on", "binary_sensor.red_person_present", ON)
    lab.camera("gate")
    story.becomes("the camera is back", "binary_sensor.gate_person_present", ON)
    for how, end in (("is killed", lab.kill), ("is stopped", lab.stop)):
        end("groundd")
        story.becomes(f"groundd {how}", "binary_sensor.red_person_present", UNAVAILABLE)
        story.becomes("its pictures go, too", "image.red_person_snapshot", UNAVAILABLE)
        lab.daemon()
        story.becomes("groundd is back", "binary_sensor.red_person_present", ON)
    lab.stop("broker")
    story.becomes("the broker is stopped", "binary_sensor.gate_person_present", UNAVAILABLE)
    lab.broker()
    story.becomes("the broker is back, and has forgotten everything", "binary_sensor.gate_person_present", ON)
    home.stop()
    home.start()
    story.becomes("Home Assistant starts again", "binary_sensor.gate_person_present", ON)
    story.becomes("it has the picture", "image.gate_person_snapshot", TIME)
    story.shows("it has no entity twice", lambda: len(home.entities()), 15)


def changes(story: Story, lab: Lab, home: Home) -> None:
    print("The configuration changes under way")
    lab.configure(PERSON | {"paused": True}, RED_CAR | {"text": "large red car"}, DOG)
    story.becomes("a query is paused", "binary_sensor.gate_person_present", UNAVAILABLE)
    story.becomes("its picture is not shown", "image.gate_person_snapshot", UNAVAILABLE)
    story.shows("another has other words", lambda: home.name("binary_sensor.gate_red_car_present"), "gate large red car")
    story.becomes("it is answered", "binary_sensor.gate_red_car_present", EITHER)
    lab.configure(PERSON, RED_CAR | {"text": "red zebra"}, DOG)
    story.becomes("the first one goes on", "binary_sensor.gate_person_present", ON)
    story.shows("so does its picture", lambda: jpeg(home, "image.gate_person_snapshot"), True)
    story.becomes("the other has a word that nano does not know", "binary_sensor.gate_red_car_present", UNAVAILABLE)
    lab.configure(PERSON | {"cameras": ["red"]}, RED_CAR)
    story.becomes("a query is removed", "binary_sensor.gate_dog_present", ABSENT)
    story.becomes("one is not for this camera any more", "binary_sensor.gate_person_present", ABSENT)
    story.becomes("one has words that nano knows", "binary_sensor.gate_red_car_present", EITHER)
    lab.configure(PERSON | {"cameras": ["red"]})
    story.becomes("a camera loses its last query", "binary_sensor.gate_red_car_present", ABSENT)
    story.shows("its device goes along", home.devices, ["red"])
    lab.configure(PERSON)
    story.becomes("it has one again", "binary_sensor.gate_person_present", ON)
    lab.configure(PERSON, cameras=("gate",))
    story.becomes("a camera is removed", "binary_sensor.red_person_present", ABSENT)
    story.shows("its device goes along", home.devices, ["gate"])
    lab.stop("groundd")
    lab.configure(DOG, cameras=("gate",))
    lab.daemon()
    story.becomes("a query is removed while groundd is down", "binary_sensor.gate_person_present", ABSENT)
    story.becomes("what came instead is there", "binary_sensor.gate_dog_present", EITHER)


def oddities(story: Story, lab: Lab, home: Home) -> None:
    print("Ids and texts that nobody thought of")
    lab.configure(PERSON, *ODD, cameras=("gate",))
    story.becomes("of two queries of one text there is the first", "binary_sensor.gate_person_present", ON)
    story.becomes("and the second", "binary_sensor.gate_twin_1_x_present", ON)
    for query in ODD[1:]:
        three = entities(f"gate_{query['id']}")
        story.shows(f"`{query['id']}` is there, and unavailable", lambda: [home.state(one) for one in three], [UNAVAILABLE] * 3)
    story.shows("there are no others", lambda: len(home.entities()), 3 * (1 + len(ODD)))
    names = {f"sensor.gate_{query['id']}_count": f"gate {query['text']} count" for query in ODD[1:]}
    story.shows("their names are their texts", lambda: {entity: home.name(entity) for entity in names}, names)
    # A Home Assistant that is told of the new ones before it is told that the last old one is gone takes the device away, and all
    # that is new along, now and then.
    for _ in range(4):
        lab.configure(DOG, cameras=("gate",))
        story.shows("one query takes the place of all", home.entities, sorted(entities("gate_dog")))
        lab.configure(PERSON, *ODD, cameras=("gate",))
        story.shows("and they take its place", lambda: len(home.entities()), 3 * (1 + len(ODD)))
    lab.configure(*(query | {"paused": False} for query in ODD), cameras=("gate",))
    story.becomes("what was paused from the start is asked", "binary_sensor.gate_resting_present", ON)
    lab.configure(cameras=("gate",))
    story.shows("all go", lambda: home.entities() + home.devices(), [])


def complaints(story: Story, lab: Lab, home: Home) -> None:
    print("Home Assistant's log")
    story.shows("there is no warning or error about any of this", home.complaints, [])


def run(groundd: Path, command: list[str]) -> bool:
    began = time.monotonic()
    with Lab(groundd) as lab:
        home = Home(lab, command)
        story = Story(lab, home)
        try:
            for chapter in (discovery, interruptions, changes, oddities, complaints):
                chapter(story, lab, home)
        except Broken as error:
            story.wrong += 1
            print(f"  WRONG  {error}")
        if story.wrong:
            print(lab.last_words())
    print(f"{story.wrong} not as wanted" if story.wrong else "all as wanted", f"in {time.monotonic() - began:.0f} s")
    return not story.wrong


def main() -> int:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--groundd", type=Path, default=ROOT / "target/release/groundd", metavar="PATH")
    told.add_argument("--hass", metavar="COMMAND", help="instead of the one that is installed for this")
    asked = told.parse_args()
    if not asked.groundd.exists():
        raise SystemExit(f"{asked.groundd} is not there; `make build` makes it")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        command = shlex.split(asked.hass) if asked.hass else [str(install(ROOT / ".runtime/venv-homeassistant"))]
        return 0 if run(asked.groundd.resolve(), command) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
