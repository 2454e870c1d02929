"""What a family of checkpoints must say of itself, and what is the same for all."""

from dataclasses import dataclass, field

import numpy as np
import torch

from . import check
from .errors import Refused
from .expected import Expected
from .runner import Runner

# Cameras that a batch holds at most: their pictures share passes, their answers are written side by side. Larger batches
# keep the first camera waiting for the last.
BATCH = 4


@dataclass
class Graph:
    """One ONNX file to be: the module, sample inputs, and which axes stay free."""

    role: str
    module: torch.nn.Module
    inputs: dict
    outputs: list
    axes: dict


@dataclass
class Case:
    """One prompt for the check. `forced` is fed after it, one token a step, whatever the model would say itself:
    a model with random weights repeats itself, and a repeated token proves little."""

    name: str
    ids: np.ndarray
    mask: np.ndarray
    forced: np.ndarray
    images: dict = field(default_factory=dict)
    positions: np.ndarray | None = None
    delta: np.ndarray | None = None


class Family:
    """Base of the families; the attributes are theirs to fill."""

    name = model_type = hub_example = ""
    model_class = None
    methods = ()
    # What the vision encoder takes, by the processor's names.
    shown = {"pixel_values": "pixel_values"}
    # Whether it writes its answers: then it has a decoder, a cache, and forms with fewer bits.
    writes = True
    # Largest error of a small model in single precision, relative to its largest logit.
    exact = 5e-6
    # Whether it reads words: then it has a vocabulary.
    reads = True
    # The key of config.json that names whose pictures' settings it takes, where they do not lie with the checkpoint.
    eye = None
    # Whether the user has a choice of the picture's size; width and height, where one was made.
    sized, image = False, None

    def load(self, checkpoint):
        """The checkpoint in single precision; refuses one whose tensors do not all find their place."""
        try:
            model, info = self.model_class.from_pretrained(
                checkpoint, dtype=torch.float32, attn_implementation="eager", local_files_only=True,
                output_loading_info=True, **self.loading(checkpoint))
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as e:
            raise Refused(f"{checkpoint}: transformers cannot load it as {self.name}: {e}") from e
        lost = sorted(info["missing_keys"]) + sorted(str(m) for m in info["mismatched_keys"])
        if lost:
            raise Refused(f"{checkpoint}: {len(lost)} tensors are missing or of another shape, the first is "
                          f"`{lost[0]}`; the folder should be laid out as {self.hub_example} is")
        return model.eval().requires_grad_(False)

    def loading(self, checkpoint):
        """What transformers is told besides of how a checkpoint is loaded."""
        return {}

    def halved(self, model):
        """The part whose weights become halves."""
        return model

    def runner(self, folder):
        return Runner(folder, self)

    def verify(self, folder, cases, expected, exactness, dtype):
        """Checks the graphs in `folder` against what was expected; returns a report, or refuses. `exactness` is the language
        model's form, `dtype` that of what is never quantised."""
        return check.verify(self.runner(folder), cases, expected, exactness)

    def impossible(self, case):
        """What the vision encoder must fail on: (what, feeds)."""
        return ()

    def tokens_of(self, case):
        """HF keyword arguments of a case's prompt."""
        return {"input_ids": torch.from_numpy(case.ids), "attention_mask": torch.from_numpy(case.mask),
                **{name: torch.from_numpy(value) for name, value in case.images.items()}}

    @torch.no_grad()
    def reference(self, model, case, greedy=0):
        """Runs transformers' own forward, with its own cache: over the forced tokens, or `greedy` of its own."""
        length = case.ids.shape[1]
        out = model(**self.tokens_of(case), use_cache=True, cache_position=torch.arange(length))
        prompt, cache = out.logits, out.past_key_values
        mask, last = torch.from_numpy(case.mask), prompt[:, -1]
        steps, tokens = [], []
        for i in range(greedy or case.forced.shape[1]):
            token = last.argmax(-1, keepdim=True) if greedy else torch.from_numpy(case.forced[:, i:i + 1])
            mask = torch.cat((mask, torch.ones_like(token)), dim=1)
            out = model(input_ids=token, attention_mask=mask, past_key_values=cache, use_cache=True,
                        cache_position=torch.tensor([length + i]))
            last, cache = out.logits[:, -1], out.past_key_values
            steps.append(last)
            tokens.append(token)
        judged = case.mask.astype(bool)
        return Expected(prompt.numpy(), torch.stack(steps, dim=1).numpy(), torch.cat(tokens, dim=1).numpy(), judged)


def splice(embeds, at, features):
    """Puts features, row by row, where `at` is true."""
    if at.sum() != len(features):
        raise Refused(f"the prompt has room for {at.sum()} image tokens and the vision encoder gave {len(features)}")
    embeds = embeds.copy()
    embeds[at] = features
    return embeds


def forced_tokens(random, vocabulary, batch, count=16):
    return random.integers(0, vocabulary, (batch, count)).astype(np.int64)


def padded(name, prompts, forced, images):
    """Prompts of different lengths as one batch, filled up on the left."""
    length = max(map(len, prompts))
    ids, mask = np.zeros((2, len(prompts), length), np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt):], mask[row, length - len(prompt):] = prompt, 1
    return Case(name, ids, mask, forced, images)
