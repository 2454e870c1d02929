"""The exported graphs in ONNX Runtime against transformers, prompt by prompt and step by step."""

from dataclasses import dataclass

import numpy as np

from .errors import Refused


@dataclass
class Report:
    """What was measured. `error` is the largest difference of any logit, `scale` the largest logit."""

    error: float = 0.0
    scale: float = 0.0
    cosine: float = 1.0
    logits: int = 0
    inputs: int = 0
    flips: int = 0
    picks: int = 0

    def take(self, got, want, case, what):
        if got.shape != want.shape:
            raise Refused(f"{case.name}: {what} came as {got.shape} and should be {want.shape}")
        if not np.isfinite(got).all():
            raise Refused(f"{case.name}: {what} hold values that are not finite; if this is --dtype fp16, use fp32")
        self.error = max(self.error, float(np.abs(got - want).max()))
        self.scale = max(self.scale, float(np.abs(want).max()))
        flat = got.reshape(-1, got.shape[-1]).astype(np.float64), want.reshape(-1, want.shape[-1]).astype(np.float64)
        lengths = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
        self.cosine = min(self.cosine, float(((flat[0] * flat[1]).sum(1) / np.maximum(lengths, 1e-30)).min()))
        self.flips += int((flat[0].argmax(1) != flat[1].argmax(1)).sum())
        self.picks += len(flat[0])
        self.logits += got.size

    def line(self):
        return (f"max abs error {self.error:.1e} on logits up to {self.scale:.2g} ({self.logits} compared), "
                f"worst cosine {self.cosine:.6f}, {self.flips} of {self.picks} best tokens differ, "
                f"{self.inputs} inputs proved in use")


# What is still agreement: largest error relative to the largest logit, and smallest cosine of any position. Single
# precision leaves room for deep models with large activations; the self-test's small ones get none of it. Quantised
# weights change answers by their nature: their limits only tell a coarse model from a broken one.
LIMITS = {"fp32": (1e-4, 0.999999), "fp16": (2e-2, 0.999), "int8": (1e-1, 0.99), "int4": (2.0, 0.7)}


def compare(runner, case, expected, report):
    """Prompt at once, then token by token, then the same tokens in uneven pieces: the cache must not care."""
    judged = expected.judged
    report.take(runner.start(case)[judged], expected.prompt[judged], case, "the prompt's logits")
    for i in range(expected.tokens.shape[1]):
        got = runner.step(expected.tokens[:, i:i + 1])[:, -1]
        report.take(got, expected.steps[:, i], case, f"the logits of step {i}")
    last = runner.start(case, keep=1)
    report.take(last[:, -1], expected.prompt[:, -1], case, "the prompt's last logits")
    for piece in (slice(0, 5), slice(5, 16)):
        got = runner.step(expected.tokens[:, piece])
        report.take(got, expected.steps[:, piece], case, "the logits of several tokens after a cache")


def prove_inputs(runner, case, report):
    """Changes one input at a time: one that changes nothing was merged with another, or is not wired at all."""
    random = np.random.default_rng(7)
    runner.start(case)
    runner.step(case.forced[:, :1])
    feeds = dict(runner.feeds)
    base = runner.sessions.run("decoder_model_merged", feeds)

    def differs(name, changed, what):
        got = runner.sessions.run("decoder_model_merged", {**feeds, name: changed})
        if np.abs(got["logits"] - base["logits"]).max() <= 1e-6 * np.abs(base["logits"]).max():
            raise Refused(f"decoder_model_merged: {what} has no effect on the logits")
        report.inputs += 1

    for name in runner.cache_ports:
        noise = random.standard_normal(feeds[name].shape).astype(feeds[name].dtype)
        differs(name, feeds[name] + noise, f"`{name}`")
        kept = base[name.replace("past_key_values", "present")][:, :, :feeds[name].shape[2]]
        if not np.array_equal(kept, feeds[name]):
            raise Refused(f"decoder_model_merged: `{name}` does not come back as the start of its `present`")
    for name, changed, what in runner.family.changes(runner, feeds, random):
        differs(name, changed, what)


def prove_vision(runner, case, report):
    """Every picture's pixels, and the grid where there is one, must reach the features."""
    for what, feeds, changed in runner.family.vision_changes(case):
        a, b = (runner.sessions.run("vision_encoder", f) for f in (feeds, changed))
        for name in a:
            if np.abs(a[name] - b[name]).max() <= 1e-6 * np.abs(a[name]).max():
                raise Refused(f"vision_encoder: {what} has no effect on `{name}`")
            report.inputs += 1
    for what, feeds in runner.family.impossible(case):
        try:
            runner.sessions.run("vision_encoder", feeds)
        except Exception:  # noqa: BLE001, ONNX Runtime has a class for every status, with no base but this
            report.inputs += 1
        else:
            raise Refused(f"vision_encoder: {what} are taken without complaint")


def verify(runner, cases, expected, exactness):
    """Runs every check; returns the report, or refuses."""
    report = Report()
    for case in cases:
        compare(runner, case, expected[case.name], report)
    pictured = [case for case in cases if case.images]
    for case in pictured[:2]:
        prove_inputs(runner, case, report)
    for case in pictured:
        prove_vision(runner, case, report)
    error, cosine = LIMITS[exactness]
    if report.error > error * report.scale or report.cosine < cosine:
        raise Refused(f"the exported graphs differ from transformers: {report.line()}; allowed for {exactness} are an "
                      f"error of {error:g} times the largest logit and a cosine of {cosine:g}")
    return report
