"""What is compared."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Expected:
    """What torch says of a case: logits of the prompt, then of every step; the tokens that were fed; and where in the
    prompt there is something to compare: what padding says is nobody's business."""

    prompt: np.ndarray
    steps: np.ndarray
    tokens: np.ndarray
    judged: np.ndarray
