"""Shipped ONNX files back to torch, so that training can go on where it was left, without a checkpoint.

The exporter folds batch norms into convolutions, transposes matrices and names what it changed by number. A model of random weights
is exported beside, by the same exporter: whatever parameter an initialiser of it equals, the shipped one at the same place belongs to.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from . import export


def initialisers(path):
    """Tensors of a file, without the limits of clipping, which are no parameters."""
    graph = onnx.load(path).graph
    limits = {name for node in graph.node if node.op_type == "Clip" for name in node.input[1:]}
    return [numpy_helper.to_array(t) for t in graph.initializer if t.name not in limits]


def folded(model):
    """(convolution, norm) pairs, whose product is what the files hold."""
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            yield module[0], module[1]


def product(conv, norm):
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


@torch.no_grad()
def scramble(model):
    """No two parameters alike: equal ones would be stored once."""
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            value.copy_(torch.rand_like(value) * 0.5 + 0.5 if name.endswith("running_var") else torch.randn_like(value) * 0.1)


def places(model):
    """Tensors of the model that a file may hold, each with the function that writes to it."""
    found, inside = [], set()
    for conv, norm in folded(model):
        inside |= {id(p) for p in (conv.weight, norm.weight, norm.bias)}
        weight, bias = product(conv, norm)
        found += [(weight, conv.weight), (bias, norm.bias)]
    for parameter in model.parameters():
        if id(parameter) not in inside:
            found.append((parameter, parameter))
            found += [(row, row) for row in parameter] if parameter.ndim == 2 and len(parameter) == 2 else []
    return [(value.detach().clone(), target.detach()) for value, target in found]


def plain_norms(model):
    """Norms that do nothing but add: what the files hold is in the convolution and in the bias."""
    for _, norm in folded(model):
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0)
        norm.weight.fill_((1.0 + norm.eps) ** 0.5)


def same(a, b):
    return a.shape == b.shape and np.allclose(a, b, atol=1e-6)


@torch.no_grad()
def shipped(folder):
    """The network whose export is in `folder`; what is used only while training starts anew."""
    model = export.new_model()
    started = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("region_")}
    scramble(model)
    model.eval()
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        export.export_graphs(model, Path(scratch))
        for name in export.GRAPHS:
            mine, theirs = initialisers(Path(scratch) / f"{name}.onnx"), initialisers(folder / f"{name}.onnx")
            if [v.shape for v in mine] != [v.shape for v in theirs]:
                raise SystemExit(f"{folder / name}.onnx was not exported from this network: its tensors differ; train from the start instead")
            pairs += zip(mine, theirs)
    known = places(model)
    plain_norms(model)
    for mark, value in pairs:
        for stood, target in known:
            stood = stood.numpy()
            if same(stood, mark):
                target.copy_(torch.from_numpy(value.copy()))
            elif stood.ndim == 2 and same(stood.T, mark):
                target.copy_(torch.from_numpy(value.T.copy()))
            else:
                continue
            break
        else:
            raise SystemExit(f"a tensor of shape {mark.shape} in {folder} has no place in this network")
    model.load_state_dict({**model.state_dict(), **started})
    return model


@torch.no_grad()
def settle(vision, batches):
    """Gives the norms the statistics that real pictures have, with the same result: a norm is then free to learn again."""
    sums = {}

    def note(norm, inputs):
        x = inputs[0].double()
        entry = sums.setdefault(norm, [0, 0.0, 0.0])
        entry[0] += x.numel() // x.shape[1]
        entry[1] = entry[1] + x.sum((0, 2, 3))
        entry[2] = entry[2] + (x * x).sum((0, 2, 3))

    hooks = [norm.register_forward_pre_hook(note) for _, norm in folded(vision)]
    vision.eval()
    for pixels in batches:
        _, maps, _ = vision.encode(pixels)
        vision.proposals(maps)
    for hook in hooks:
        hook.remove()
    for norm, (count, total, squares) in sums.items():
        mean = total / count
        spread = (squares / count - mean * mean).clamp(min=1e-4)
        norm.bias += mean.float()  # the norm's scale was 1
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(spread)
        norm.weight.copy_((spread + norm.eps).sqrt())


def least_squares(x, y, ridge=1e-5):
    """Weight and bias of the linear layer that makes `y` of `x`, rows are samples."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = (x - mean_x).double(), (y - mean_y).double()
    square = x.T @ x
    weight = torch.linalg.solve(square + ridge * square.diagonal().mean() * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y).T.float()
    return weight, mean_y - weight @ mean_x


@torch.no_grad()
def translate(old, model, batches):
    """An image side that has gone on learning speaks another language: its channels mean something else. The layers of `model` that
    read it are set to what comes closest to what they made of the `old` one's, box by box and cell by cell."""
    new, rows = model.vision, {"mine": [], "theirs": [], "cells": [], "cells before": []}
    for pixels in batches:
        maps, _, _, _, boxes, objectness, (seen, _, _) = new.look(pixels)
        old_maps, small = old.encode(pixels)[1:]
        _, _, kinds = old.proposals(old_maps)
        before = old.regions.gather(old_maps, small, kinds, torch.zeros(boxes.shape[:2], dtype=torch.long), boxes)[0]
        some = objectness > 0.05
        rows["mine"].append(seen[some])
        rows["theirs"].append(old.regions.look(before[some]))
        flat = lambda ms: torch.cat([m.flatten(2) for m in ms], 2).transpose(1, 2)[:, ::5].flatten(0, 1)
        rows["cells"].append(flat(maps))
        rows["cells before"].append(flat(old_maps))
    rows = {key: torch.cat(value) for key, value in rows.items()}
    weight, bias = least_squares(rows["mine"], rows["theirs"])
    new.regions.look.weight.copy_(weight)
    new.regions.look.bias.copy_(bias)
    turn, shift = least_squares(rows["cells"], rows["cells before"])
    reads, cell = rows["cells"].shape[1], model.detect.cell
    was = cell.weight[:, :reads, 0].clone()
    cell.weight[:, :reads, 0] = was @ turn
    cell.bias += was @ shift
    explained = lambda x, y, w, b: float(1 - (y - x @ w.T - b).var(0).sum() / y.var(0).sum())
    return (explained(rows["mine"], rows["theirs"], weight, bias), explained(rows["cells"], rows["cells before"], turn, shift))
