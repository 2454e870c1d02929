"""Every family by the name the command line uses."""

from . import florence2, paligemma, qwen2_5_vl, qwen2_vl, qwen3_vl

FAMILIES = {module.Family.name: module.Family() for module in (qwen2_vl, qwen2_5_vl, qwen3_vl, florence2, paligemma)}
