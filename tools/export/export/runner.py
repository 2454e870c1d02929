"""The exported graphs in ONNX Runtime, driven as the daemon drives them. numpy only: torch plays no part here."""

from pathlib import Path

import numpy as np
import onnxruntime

from .expected import Expected

DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(bool)": bool}


class Sessions:
    """The folder's graphs by role."""

    def __init__(self, folder, roles):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Failures come back as errors; a check provokes some.
        options.log_severity_level = 4
        self.sessions = {
            role: onnxruntime.InferenceSession(
                Path(folder) / f"{role}.onnx", options, providers=["CPUExecutionProvider"])
            for role in roles
        }

    def inputs(self, role):
        return {port.name: port for port in self.sessions[role].get_inputs()}

    def run(self, role, feeds):
        session = self.sessions[role]
        types = {port.name: DTYPES[port.type] for port in session.get_inputs()}
        feeds = {name: np.asarray(feeds[name]).astype(dtype, copy=False) for name, dtype in types.items()}
        names = [port.name for port in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds)))


class Runner:
    """One conversation: `start` with a prompt, then `step` with more tokens; keeps the cache between."""

    roles = ("vision_encoder", "embed_tokens", "decoder_model_merged")

    def __init__(self, folder, family):
        self.family = family
        self.sessions = Sessions(folder, self.roles)
        self.ports = self.sessions.inputs("decoder_model_merged")
        self.cache_ports = [name for name in self.ports if name.startswith("past_key_values.")]
        self.cache, self.feeds = {}, {}

    def embed(self, ids):
        return self.sessions.run("embed_tokens", {"input_ids": ids})["inputs_embeds"]

    def empty_cache(self, batch):
        """Shapes come from the graph: heads and width are fixed in it, batch and length are free."""
        shapes = {name: self.ports[name].shape for name in self.cache_ports}
        return {name: np.zeros((batch, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}

    def decode(self, feeds):
        """Runs the decoder on `feeds` and the cache; keeps both, so that a check can repeat the run with a change."""
        self.feeds = {**feeds, **self.cache}
        out = self.sessions.run("decoder_model_merged", self.feeds)
        self.cache = {name: out[name.replace("past_key_values", "present")] for name in self.cache_ports}
        return out["logits"]

    def start(self, case, keep=0):
        self.case, self.seen = case, case.mask
        embeds, extra = self.family.spliced(self, case)
        self.cache, self.past = self.empty_cache(len(case.ids)), case.ids.shape[1]
        feeds = {"inputs_embeds": embeds, "attention_mask": case.mask, "position_ids": case.positions, **extra}
        return self.decode({**feeds, "num_logits_to_keep": keep})

    def step(self, tokens, keep=0):
        batch, length = tokens.shape
        self.seen = np.concatenate([self.seen, np.ones((batch, length), np.int64)], axis=1)
        feeds = {"inputs_embeds": self.embed(tokens), "attention_mask": self.seen, "num_logits_to_keep": keep,
                 **self.family.step_extra(self, batch, length)}
        self.past += length
        return self.decode(feeds)

    def greedy(self, case, steps):
        """What `Family.reference` tells of transformers, of these graphs."""
        prompt = self.start(case)
        last, found, tokens = prompt[:, -1], [], []
        for _ in range(steps):
            token = last.argmax(-1)[:, None]
            last = self.step(token)[:, -1]
            found.append(last)
            tokens.append(token)
        judged = np.ones(prompt.shape[:2], bool)
        return Expected(prompt, np.stack(found, axis=1), np.concatenate(tokens, axis=1), judged)

    def seen_by_tower(self, case):
        feeds = {name: case.images[told] for name, told in self.family.shown.items()}
        return self.sessions.run("vision_encoder", feeds)
