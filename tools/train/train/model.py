"""nano as a whole, and the three graphs it is exported as."""

import torch
from torch import nn

from .language import Select, Text
from .vision import FUSED, Vision
from .spec import DIM


class Nano(nn.Module):
    def __init__(self, vocabulary, classes, colours):
        super().__init__()
        self.vision = Vision()
        self.text = Text(vocabulary)
        self.select = Select()
        # Training only: they make the features say what an object is before any phrase is understood.
        self.dense_class = nn.Conv2d(FUSED, classes, 1)
        self.region_class = nn.Linear(DIM, classes)
        self.region_colour = nn.Linear(DIM, 3 * colours)  # whole, upper and lower body


class SelectGraph(nn.Module):
    """Probabilities instead of logits, as the daemon reads them."""

    def __init__(self, select):
        super().__init__()
        self.select = select

    def forward(self, regions, boxes, objectness, text, ids):
        match, none = self.select(regions, boxes, objectness, text, ids)
        return torch.sigmoid(match), torch.sigmoid(none)
