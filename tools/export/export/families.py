"""Every family by the name the command line uses."""

from .contrast import Clip, Siglip
from .deformable import DeformableDetr
from .detection import DFine, GroundingDino, Owlv2, RtDetr
from .florence2 import Florence2
from .llava_grounding import LlavaGrounding
from .paligemma import PaliGemma
from .qwen2_5_vl import Qwen25VL
from .qwen2_vl import Qwen2VL
from .qwen3_vl import Qwen3VL
from .vlm_fo1 import VlmFo1

FAMILIES = {family.name: family() for family in (
    Qwen2VL, Qwen25VL, Qwen3VL, Florence2, PaliGemma, GroundingDino, Owlv2, Clip, Siglip, RtDetr, DFine, DeformableDetr,
    VlmFo1, LlavaGrounding)}
# Those that write boxes, a token after the other; VLM-FO1 names regions, which it must be shown, and LLaVA-Grounding has a
# head for them.
WRITERS = {name: family for name, family in FAMILIES.items()
           if family.writes and name not in (VlmFo1.name, LlavaGrounding.name)}
