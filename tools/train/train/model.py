"""nano as a whole; `language` holds the graphs that are exported around it."""

from torch import nn

from .language import Detect, Select, Text, Write
from .spec import DIM
from .vision import Vision


class Nano(nn.Module):
    def __init__(self, vocabulary, classes, colours):
        super().__init__()
        self.vision = Vision()
        self.text = Text(vocabulary)
        self.select = Select()
        self.detect = Detect()
        self.write = Write()
        # Training only: they make the region tokens say what an object is before any phrase is understood.
        self.region_class = nn.Linear(DIM, classes)
        self.region_colour = nn.Linear(DIM, 3 * colours)  # whole, upper and lower body
