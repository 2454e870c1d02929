"""How it is told."""

import re
import time
from collections.abc import Callable

from home import Home
from lab import Lab

# The longest that anything takes on a busy machine.
PATIENCE = 60
# What follows on something wrong is mostly wrong because of that.
IMPATIENCE = 5


class Story:
    """Tells what is seen, one line each, and counts what is not as it should be."""

    def __init__(self, lab: Lab, home: Home) -> None:
        self.lab = lab
        self.home = home
        self.wrong = 0

    def becomes(self, what: str, entity: str, pattern: str) -> None:
        """An entity's state."""
        self.tell(what, lambda: self.home.state(entity), lambda state: re.fullmatch(pattern, state), f"{entity} `{pattern}`")

    def shows(self, what: str, ask: Callable[[], object], wanted: object) -> None:
        self.tell(what, ask, lambda found: found == wanted, f"`{wanted}`")

    def tell(self, what: str, ask: Callable[[], object], right: Callable[[object], object], wanted: str) -> None:
        """Nothing comes at once: the machine may be busy, and so may be the others on it."""
        began = time.monotonic()
        while True:
            self.lab.alive()
            found = answer(ask)
            took = time.monotonic() - began
            if right(found):
                print(f"  ok     {what}" + (f" ({took:.0f} s)" if took >= 1 else ""), flush=True)
                return
            if took > (IMPATIENCE if self.wrong else PATIENCE):
                self.wrong += 1
                print(f"  WRONG  {what}: not {wanted} but `{found}`, after {took:.0f} s", flush=True)
                return
            time.sleep(0.2)


def answer(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except (OSError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
