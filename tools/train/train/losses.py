"""Losses of the language side; the image side has learned already and is not changed any more."""

import torch
import torch.nn.functional as F

from .distil import quality_focal
from .spec import ANSWER, BINS, DIGITS, HEADS, DIM, PAD
from .language import WRITE_LAYERS

MATCHED = 0.5    # IoU from which a region stands for an object
UNCLEAR = 0.3    # between the two it is nobody's, unless another region stands for the same object
BEHIND = 0.25    # a region whose IoU is less than the best one's by more than this stands for nothing: the best one does
OFFERED = 0.05
WRITTEN = 6      # boxes of an answer that are taught


def pair_iou(a, b):
    """[B,K,4] x [B,N,4] -> [B,K,N]."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = lambda x: (x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1)
    return inter / (area(a)[:, :, None] + area(b)[:, None] - inter + 1e-9)


def inside(boxes, ignored):
    """Largest share of each box that lies in an ignored one."""
    low = torch.maximum(boxes[:, :, None, :2], ignored[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], ignored[:, None, :, 2:])
    share = (high - low).clamp(min=0).prod(-1) / (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-4).prod(-1)[..., None]
    return share.max(-1).values


def assign(boxes, batch):
    """(object index [B,K], state): 1 stands for it, 0 background, -1 unclear or ignored. A loose box beside a good one is
    background: else every object would be found twice."""
    overlap = pair_iou(boxes, batch["truth"])
    best, index = overlap.max(-1)
    first = overlap.max(1).values.gather(1, index)
    state = torch.where(best >= MATCHED, 1, torch.where(best < UNCLEAR, 0, -1))
    state = torch.where((first >= MATCHED) & (best < first - BEHIND), 0, state)
    return index, torch.where((state == 0) & (inside(boxes, batch["ignored"]) > 0.4), -1, state)


def region_losses(model, regions, index, state, batch):
    """Class and colours of the regions that stand for an object."""
    row, slot = torch.nonzero(state == 1, as_tuple=True)
    tokens, item = regions[row, slot], index[row, slot]
    kind = F.cross_entropy(model.region_class(tokens), batch["classes"][row, item]) if len(row) else regions.sum() * 0
    shades = model.region_colour(tokens).reshape(len(row), 3, -1)
    wanted = batch["colour"][row, item]
    known = wanted >= 0
    colour = F.cross_entropy(shades[known], wanted[known]) if known.any() else regions.sum() * 0
    return {"class": kind, "colour": colour}


def select_losses(match, none, index, state, batch, row, q):
    """Pointer per region, `none`, and a softmax over regions and `none` that makes regions compete."""
    meant = batch["states"][row, q].gather(1, index[row]).float()
    target = torch.where(state[row] == 1, meant, torch.zeros_like(meant))
    known = torch.where(state[row] == 1, meant >= 0, (state[row] == 0) | ((state[row] == -1) & (meant == 0)))
    known &= batch["objectness"][row] >= OFFERED
    positive = (target == 1) & known
    probability = match.sigmoid()
    focus = torch.where(positive, 1 - probability, probability).detach() + 0.05
    raw = F.binary_cross_entropy_with_logits(match, positive.float(), reduction="none")
    bce = (raw * known * focus).sum() / positive.sum().clamp(min=1)
    wanted = batch["none"][row, q]
    any_slot = positive.any(1)
    sure = (wanted == 1) | ((wanted == 0) & any_slot)
    none_raw = F.binary_cross_entropy_with_logits(none, (wanted == 1).float(), reduction="none")
    none_loss = (none_raw * sure).sum() / sure.sum().clamp(min=1)
    logits = torch.cat([match.masked_fill(~known, -1e4), none.unsqueeze(1)], 1)
    goal = torch.cat([positive, (wanted == 1).unsqueeze(1)], 1)
    inner = torch.logsumexp(logits.masked_fill(~goal, -1e4), 1) - torch.logsumexp(logits, 1)
    usable = goal.any(1) & sure
    compete = -(inner * usable).sum() / usable.sum().clamp(min=1)
    return {"match": bce, "none": none_loss, "compete": compete}, positive


def detect_loss(model, batch, text, ids, row, q):
    """The score of a cell is the IoU of its box with an object that is meant, where the cell is object-like at all."""
    places, states = batch["places"].transpose(1, 2), batch["states"][row, q]
    overlap = pair_iou(places, batch["truth"])[row]
    meant = (overlap * (states == 1).float().unsqueeze(1)).max(-1).values
    doubtful = ((overlap * (states == -1).float().unsqueeze(1)).max(-1).values > 0.4) | (inside(places, batch["ignored"])[row] > 0.5)
    target = torch.where((meant > 0.5) & (batch["heat"][row] > 0.1), meant, torch.zeros_like(meant))
    logits = model.detect(batch["cells"][row], batch["places"][row], text, ids)
    raw = quality_focal(logits, target) * (~doubtful | (target > 0))
    return raw.sum() / target.sum().clamp(min=1)


def spell(box, digits):
    """A box in fractions as answer tokens, after `<box>`."""
    if digits:
        numbers = [min(int(round(float(v) * 10**DIGITS)), 10**DIGITS - 1) for v in box]
        return [ANSWER[d] for n in numbers for d in f"{max(n, 0):0{DIGITS}d}"]
    return [ANSWER["<bin_0>"] + min(max(int(float(v) * BINS), 0), BINS - 1) for v in box]


def sentence(boxes, digits):
    """All boxes from left to right. An answer that goes on after the taught ones has no end."""
    order = sorted(range(len(boxes)), key=lambda i: float(boxes[i][0]))
    tokens = [ANSWER["<coords>" if digits else "<bins>"]]
    for i in order[:WRITTEN]:
        tokens += [ANSWER["<box>"], *spell(boxes[i], digits)]
    return tokens + ([ANSWER["<end>"]] if len(boxes) <= WRITTEN else [])


def write_loss(model, states, match, positive, index, batch, row, q, most=40):
    """Next-token loss over answers whose objects are all known; half of them see the right regions, half what Select made of them."""
    clear = ((batch["states"][row, q] != -1).all(1)) & (batch["none"][row, q] >= 0)
    clear &= positive.any(1) | (batch["none"][row, q] == 1)
    some = torch.nonzero(clear).flatten()
    some = some[torch.randperm(len(some))[:most]]
    if not len(some):
        return {}
    result = {}
    told = torch.rand(len(some), 1) < 0.5
    shown = torch.where(told, positive[some].float() * 0.9 + 0.01, match[some].sigmoid().detach())
    for name, digits in (("coords", True), ("bins", False)):
        lines = []
        for i in some.tolist():
            found = index[row[i]][positive[i]].unique()
            lines.append(sentence(batch["truth"][row[i]][found].tolist(), digits))
        length = max(map(len, lines))
        tokens = torch.tensor([line + [ANSWER["<pad>"]] * (length - len(line)) for line in lines])
        past = states.new_zeros(len(lines), 2 * WRITE_LAYERS, HEADS, 0, DIM // HEADS)
        logits, _ = model.write(states[some], shown, tokens[:, :-1], past)
        result[name] = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=ANSWER["<pad>"])
    return result


WEIGHTS = {"class": 0.3, "colour": 0.3, "match": 1.0, "none": 0.5, "compete": 0.5, "detect": 0.5, "coords": 0.5, "bins": 0.5}


def total(model, batch):
    """(weighted sum, every part as a number)."""
    regions = model.vision.regions(batch["seen"], batch["kind"], batch["colours"], batch["boxes"])
    index, state = assign(batch["boxes"], batch)
    parts = region_losses(model, regions, index, state, batch)
    row, q = torch.nonzero(batch["asked"], as_tuple=True)
    ids = batch["ids"][row, q]
    ids = ids[:, : int((ids != PAD).sum(1).max())]  # padding is masked: it would only cost time
    text = model.text(ids)
    match, none, states = model.select(regions[row], batch["boxes"][row], batch["objectness"][row], text, ids)
    chosen, positive = select_losses(match, none, index, state, batch, row, q)
    parts |= chosen
    parts["detect"] = detect_loss(model, batch, text, ids, row, q)
    parts |= write_loss(model, states, match, positive, index, batch, row, q)
    loss = sum(WEIGHTS[name] * value for name, value in parts.items())
    return loss, {name: float(value.detach()) for name, value in parts.items()}
