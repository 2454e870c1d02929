"""Pieces shared by the image side and the language side."""

import math

import torch
from torch import nn


def half_precision(on):
    """bfloat16 for the heavy products while training: half the time on a CPU that has it. One that has not imitates it,
    at a sample a second: there they stay float32. Weights always do."""
    return torch.autocast("cpu", torch.bfloat16, enabled=on and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Layer(nn.Module):
    """Pre-norm transformer layer. `bias` is added to the attention logits: masks and geometry."""

    def __init__(self, width, heads, expand=2):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, expand * width), nn.ReLU(), nn.Linear(expand * width, width))

    def forward(self, x, bias=None):
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) / math.sqrt(width // self.heads)
        if bias is not None:
            logits = logits + bias
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(b, n, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x))


class Reader(nn.Module):
    """Pre-norm transformer layer whose keys need not be what it changes."""

    def __init__(self, width, heads, expand=2):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, expand * width), nn.ReLU(), nn.Linear(expand * width, width))

    def split(self, x, parts):
        b, n, width = x.shape
        return x.reshape(b, n, parts, self.heads, width // parts // self.heads).permute(2, 0, 3, 1, 4)

    def attend(self, x, own, keys, values, bias):
        b, n, width = x.shape
        q = self.split(self.q(own), 1)[0]
        logits = q @ keys.transpose(-1, -2) / math.sqrt(width // self.heads) + bias
        x = x + self.out((logits.softmax(-1) @ values).transpose(1, 2).reshape(b, n, width))
        return x + self.mlp(self.norm2(x))

    def forward(self, x, words, bias):
        """x [B,N,D] reads words [B,L,D] and itself."""
        own = self.norm1(x)
        keys, values = self.split(self.kv(torch.cat([words, own], 1)), 2)
        return self.attend(x, own, keys, values, bias)

    def again(self, x, keys, values, bias):
        """x reads what was written before (keys and values) and itself; returns the longer keys and values too."""
        own = self.norm1(x)
        more_keys, more_values = self.split(self.kv(own), 2)
        keys = torch.cat([keys.to(more_keys.dtype), more_keys], 2)
        values = torch.cat([values.to(more_values.dtype), more_values], 2)
        return self.attend(x, own, keys, values, bias), keys, values

    def other(self, x, others, bias):
        """x reads only `others`."""
        keys, values = self.split(self.kv(others), 2)
        return self.attend(x, self.norm1(x), keys, values, bias)


def box_features(boxes):
    """Where and how large, at several wavelengths, so that a linear layer can compare positions."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = (x2 - x1).clamp(min=1e-3), (y2 - y1).clamp(min=1e-3)
    base = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, w.sqrt(), h.sqrt(), (w * h).sqrt(), (w / h).log() / 3], -1)
    waves = [base] + [f(base * math.pi * k) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
    return torch.cat(waves, -1)


box_features.width = 6 * 7


def pair_features(boxes):
    """How box j lies to box i: [P,K,K,6], bounded so that far pairs do not dominate."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    delta = centre.unsqueeze(1) - centre.unsqueeze(2)
    log = size.log()
    ratio = log.unsqueeze(1) - log.unsqueeze(2)
    near = (delta / (size.unsqueeze(1) + size.unsqueeze(2))).clamp(-3, 3)
    return torch.cat([torch.tanh(delta * 8), near / 3, torch.tanh(ratio)], -1)
