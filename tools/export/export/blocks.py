"""The arithmetic every family shares, written so that a trace holds for any batch, sequence and past length.

Weights may be half precision; the residual stream, norms, rotary angles and softmax stay in single precision,
because published checkpoints were trained in bfloat16 and their activations outgrow what a half can hold.
"""

import torch
from torch.nn import functional as F

# Far below any score, and far above what would overflow when a score is added.
MASKED = -1e9


def halve(module):
    """Turns the weights of matrix products into halves, in place."""
    for part in module.modules():
        if isinstance(part, (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv2d, torch.nn.Conv3d)):
            part.half()
    return module


def linear(layer, x):
    return F.linear(x.to(layer.weight.dtype), layer.weight, layer.bias)


def conv(layer, x):
    return F.conv2d(
        x.to(layer.weight.dtype), layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    ).float()


def patches(layer, x):
    """A convolution whose stride is its kernel, on patches that are cut out and flattened already."""
    weight = layer.weight.reshape(layer.weight.shape[0], -1)
    return F.linear(x.to(weight.dtype), weight, layer.bias).float()


def layer_norm(layer, x):
    return F.layer_norm(x.float(), layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def rms_norm(x, weight, eps):
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, cos, sin):
    """Rotary embedding on the last axis; `cos` and `sin` broadcast against `x`."""
    x32 = x.float()
    half = x.shape[-1] // 2
    turned = torch.cat((-x32[..., half:], x32[..., :half]), dim=-1)
    return (x32 * cos + turned * sin).to(x.dtype)


def heads(x, count, dim):
    """[batch, length, count*dim] -> [batch, count, length, dim]; the length may be 0, so no axis is left to guess."""
    return x.reshape(x.shape[0], x.shape[1], count, dim).transpose(1, 2)


def attention(q, k, v, bias, scale, softcap=None):
    """[batch, heads, length, dim] -> [batch, length, heads*dim].

    Fewer key heads than query heads are served by folding each group of query heads into the length, which saves
    copying the cache once a query head. `bias` broadcasts against [batch, 1, length, keys]; None is no mask.
    """
    batch, count, length, dim = q.shape[0], q.shape[1], q.shape[2], q.shape[3]
    kv_count = k.shape[1]
    groups = count // kv_count
    # Scaled before the product: unscaled, Qwen's keys take it past what a half can hold.
    q = (q.float() * scale).to(k.dtype).reshape(batch, kv_count, groups * length, dim)
    scores = torch.matmul(q, k.transpose(2, 3)).float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.reshape(batch, count, length, -1)
    if bias is not None:
        scores = scores + bias
    weights = torch.softmax(scores, dim=-1).to(v.dtype)
    mixed = torch.matmul(weights.reshape(batch, kv_count, groups * length, -1), v)
    return mixed.reshape(batch, count, length, dim).transpose(1, 2).reshape(batch, length, count * dim)


def key_bias(mask):
    """[batch, keys] of 0 and 1 -> a bias that hides the zeros."""
    return (1.0 - mask[:, None, None, :].float()) * MASKED


def causal(length, past):
    """[length, past+length] truth: which keys each new position may see."""
    keys = torch.arange(past + length)
    return keys[None, :] <= (torch.arange(length) + past)[:, None]


def extend(past, new):
    """Appends new keys or values to the cache."""
    return torch.cat((past, new.to(past.dtype)), dim=2)
