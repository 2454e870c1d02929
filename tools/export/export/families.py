"""Every family by the name the command line uses."""

from .florence2 import Florence2
from .paligemma import PaliGemma
from .qwen2_5_vl import Qwen25VL
from .qwen2_vl import Qwen2VL
from .qwen3_vl import Qwen3VL

FAMILIES = {family.name: family() for family in (Qwen2VL, Qwen25VL, Qwen3VL, Florence2, PaliGemma)}
