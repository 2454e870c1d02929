"""What families have in common that give scores and boxes rather than words: graphs that are run once, with no cache.

A case is a set of inputs for one graph; what transformers' own forward gives for it is compared output by output.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from .errors import Refused
from .family import Family
from .runner import Sessions


# Rows of an output from which on a few may differ.
MANY = 100


@dataclass
class Run:
    """Inputs of one graph. `idle` are inputs that rightly have no effect in this case; `fatal` must fail."""

    name: str
    role: str
    feeds: dict
    idle: tuple = ()


@dataclass
class Measured:
    """What was measured. `error` is the largest difference relative to `scale`, the largest value of its output."""

    error: float = 0.0
    scale: float = 1.0
    values: int = 0
    inputs: int = 0
    worst: str = ""
    outputs: set = field(default_factory=set)

    def line(self):
        return (f"largest error {self.error:.1e} of the largest value, in {self.worst} ({self.values} values of "
                f"{', '.join(sorted(self.outputs))} compared), {self.inputs} inputs proved in use")


def compare(got, want, what, report):
    if got.shape != want.shape:
        raise Refused(f"{what} came as {got.shape} and should be {want.shape}")
    # Places that a text does not reach are minus infinity on both sides.
    same = np.isneginf(want)
    if not np.array_equal(same, np.isneginf(got)) or not np.isfinite(got[~same]).all():
        raise Refused(f"{what}: values are not finite where they should be")
    got, want = got[~same], want[~same]
    error = float(np.abs(got - want).max()) / max(float(np.abs(want).max()), 1e-6)
    if error >= report.error:
        report.error, report.worst = error, what
    report.values += got.size


def settled(want, got, spared, ordered):
    """The outputs of both, row by row, without the part of the rows that differ most. Of hundreds of queries the last are chosen by
    a hair, and come in any order; of thousands of cells one may stand where rounding is blown up."""
    rows = want["pred_boxes"].shape[1]
    sound = all(got[name].shape == want[name].shape and not np.isnan(got[name]).any() for name in want)
    if not spared or rows < MANY or not sound:
        return want, got
    sides = [{name: np.nan_to_num(side[name][0], neginf=0) for name in want} for side in (want, got)]
    at = np.arange(rows)
    if not ordered:
        scales = {name: max(np.abs(sides[0][name]).max(), 1e-6) for name in want}
        # By all their values: of hundreds of queries many have the same box or the same best logit.
        marks = [np.concatenate([side[name] / scales[name] for name in want], 1) for side in sides]
        far = np.stack([np.abs(marks[0] - row).max(-1) for row in marks[1]])
        for row in np.argsort(far.min(1)):  # the surest first: what has no equal must not take another's
            at[row] = far[row].argmin()
            far[:, at[row]] = np.inf
    off = [np.abs(sides[0][name][at] - sides[1][name]).max(1) / max(np.abs(sides[0][name]).max(), 1e-6) for name in want]
    kept = np.argsort(np.max(off, 0))[:rows - int(spared * rows)]
    return {name: want[name][:, at[kept]] for name in want}, {name: got[name][:, kept] for name in want}


def blotches(random, height, width):
    """A picture of about unit variance with large and small in it, [1, 3, height, width]. In plain noise a deep network sees the same
    everywhere, and which of equal cells is chosen is a matter of rounding."""
    picture = np.zeros((1, 3, height, width), np.float32)
    for cells in (3, 12, 48, max(height, width)):
        part = random.standard_normal((1, 3, min(cells, height), min(cells, width))).astype(np.float32)
        picture += torch.nn.functional.interpolate(torch.from_numpy(part), (height, width), mode="nearest").numpy()
    return picture / 2


def prove(sessions, run, base, report):
    """Every input must change what comes out: one that does not was folded into another, or into a constant."""
    random = np.random.default_rng(11)
    for name, value in run.feeds.items():
        if name in run.idle:
            continue
        changed = np.array(value)
        if changed.dtype.kind == "f":
            changed += random.standard_normal(changed.shape).astype(changed.dtype)
        elif "mask" in name:
            changed[..., changed.shape[-1] // 4:changed.shape[-1] // 2 + 1] = 0
        elif "type" in name:
            changed = 1 - changed
        else:
            changed[..., 1:-1] = np.where(changed[..., 1:-1] > 4, changed[..., 1:-1] - 1, changed[..., 1:-1] + 1)
        got = sessions.run(run.role, {**run.feeds, name: changed})
        moved = [np.abs(np.nan_to_num(got[key], neginf=0) - np.nan_to_num(base[key], neginf=0)).max() for key in base]
        if not max(moved) > 1e-6:
            raise Refused(f"{run.role}: `{name}` has no effect on {', '.join(base)}")
        report.inputs += 1


class Head(Family):
    """Families without a decoder: the attributes and `runs`, `expected` are theirs to fill."""

    writes = False
    roles = ()
    # Largest error relative to the largest value of an output: of any checkpoint, for deep towers add up roundings, and
    # of the self-test's small ones.
    allowed, exact = 1e-4, 5e-6
    # The part of many rows that may differ, and whether rows come in an order of their own making.
    spared, ordered = 0.0, True

    def cases(self, model, seed=1):
        return list(self.runs(model, np.random.default_rng(seed)))

    @torch.no_grad()
    def reference(self, model, case, greedy=0):
        """transformers' outputs for a case, by name."""
        found = self.expected(model, case.role, {name: torch.from_numpy(value) for name, value in case.feeds.items()})
        return {name: value.numpy() for name, value in found.items()}

    def verify(self, folder, cases, expected, exactness, dtype):
        sessions, report, proved = Sessions(folder, self.roles), Measured(), set()
        for case in cases:
            got = sessions.run(case.role, case.feeds)
            wanted, given = expected[case.name], got
            if "pred_boxes" in wanted:
                wanted, given = settled(wanted, given, self.spared, self.ordered)
            for name, want in wanted.items():
                compare(given[name], want, f"{case.name}: `{name}`", report)
                report.outputs.add(name)
            if case.role not in proved or len(case.feeds) > 1:
                proved.add(case.role)
                prove(sessions, case, {name: got[name] for name in expected[case.name]}, report)
        if report.error > self.allowed:
            raise Refused(f"the exported graphs differ from transformers: {report.line()}; allowed is {self.allowed:g}")
        return report


