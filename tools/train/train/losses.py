"""All losses, from the first step on."""

import torch
import torch.nn.functional as F

from .spec import GRID_H, GRID_W, HEIGHT, PAD, WIDTH

SLOTS = 32       # regions shown to the language side while training
MATCHED = 0.5    # IoU from which a slot stands for an object
UNCLEAR = 0.3    # between the two it is nobody's


def pair_iou(a, b):
    """[B,K,4] x [B,N,4] -> [B,K,N]."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = lambda x: (x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1)
    return inter / (area(a)[:, :, None] + area(b)[:, None] - inter + 1e-9)


def giou_loss(a, b):
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - inter
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(-1)
    return 1 - inter / (union + 1e-6) + (hull - union) / (hull + 1e-6)


def heat_loss(logits, target, weight):
    """Focal loss towards the Gaussian itself, per object.

    Cells near a centre learn too; with the centre alone as positive, large objects took far longer to be found.
    """
    raw = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focus = (target - logits.sigmoid()).detach() ** 2
    return (raw * focus * weight).sum() / (target == 1).float().sum().clamp(min=1)


def dense_losses(model, fused, heat, boxes, batch):
    """Objectness, boxes and classes on the grid."""
    b = heat.shape[0]
    target, weight = batch["heat"].reshape(b, -1), batch["weight"].reshape(b, -1)
    owner = batch["owner"].reshape(b, -1)
    row, cell = torch.nonzero(owner >= 0, as_tuple=True)
    scale = boxes.new_tensor([WIDTH, HEIGHT] * 2)
    object_index = owner[row, cell]
    kept = object_index < batch["boxes"].shape[1]
    row, cell, object_index = row[kept], cell[kept], object_index[kept]
    share = target[row, cell]
    total = share.sum().clamp(min=1)
    truth = batch["boxes"][row, object_index]
    box = (giou_loss(boxes[row, cell] * scale, truth) * share).sum() / total
    classes = model.dense_class(fused).flatten(2).transpose(1, 2)[row, cell]
    kind = (F.cross_entropy(classes, batch["classes"][row, object_index], reduction="none") * share).sum() / total
    return {"heat": heat_loss(heat, target, weight), "box": box, "dense_class": kind}


def jitter(boxes, amount):
    size = boxes[..., 2:] - boxes[..., :2]
    return (boxes + torch.randn_like(boxes) * amount * size.repeat(1, 1, 2)).clamp(0, 1)


@torch.no_grad()
def choose_slots(model, heat, boxes, batch, real_share):
    """Regions for the language side: labelled boxes (a share of them, jittered), then the network's own proposals."""
    truth = batch["boxes"] / batch["boxes"].new_tensor([WIDTH, HEIGHT] * 2)
    there = batch["classes"] >= 0
    given = there & (torch.rand(there.shape) < real_share)
    proposals, objectness = model.vision.proposals.peaks(heat, boxes, SLOTS)
    centre = ((truth[..., :2] + truth[..., 2:]) / 2 * truth.new_tensor([GRID_W, GRID_H])).long()
    cell = (centre[..., 1].clamp(max=GRID_H - 1) * GRID_W + centre[..., 0].clamp(max=GRID_W - 1))
    seen = heat.sigmoid().gather(1, cell)
    given_score = torch.where(given, torch.maximum(seen, 0.3 + 0.5 * torch.rand(seen.shape)), torch.zeros_like(seen))
    rank = torch.cat([torch.where(given, given_score + 1, torch.full_like(seen, -1)), objectness], 1)
    order = rank.topk(SLOTS, 1).indices
    everything = torch.cat([jitter(truth, 0.04), proposals], 1)
    scores = torch.cat([given_score, objectness], 1)
    slots = everything.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    return slots, scores.gather(1, order)


@torch.no_grad()
def assign(slots, batch):
    """(object index [B,K], state): 1 stands for it, 0 background, -1 unclear or ignored."""
    scale = slots.new_tensor([WIDTH, HEIGHT] * 2)
    best, index = pair_iou(slots, batch["boxes"] / scale).max(-1)
    ignored = batch["ignored"] / scale
    low = torch.maximum(slots[:, :, None, :2], ignored[:, None, :, :2])
    high = torch.minimum(slots[:, :, None, 2:], ignored[:, None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1) / (slots[..., 2:] - slots[..., :2]).clamp(min=1e-4).prod(-1)[..., None]
    state = torch.where(best >= MATCHED, 1, torch.where(best < UNCLEAR, 0, -1))
    state = torch.where((state == 0) & (inside.max(-1).values > 0.4), -1, state)
    return index, state


def region_losses(model, regions, index, state, batch):
    """Class and colours of the slots that stand for an object."""
    row, slot = torch.nonzero(state == 1, as_tuple=True)
    tokens, item = regions[row, slot], index[row, slot]
    kind = F.cross_entropy(model.region_class(tokens), batch["classes"][row, item]) if len(row) else regions.sum() * 0
    shades = model.region_colour(tokens).reshape(len(row), 3, -1)
    wanted = batch["colours"][row, item]
    known = wanted >= 0
    colour = F.cross_entropy(shades[known], wanted[known]) if known.any() else regions.sum() * 0
    return {"class": kind, "colour": colour}


def select_losses(model, regions, slots, scores, index, state, batch):
    """Pointer per region, `none`, and a softmax over regions and `none` that makes regions compete."""
    row, q = torch.nonzero(batch["asked"], as_tuple=True)
    ids = batch["ids"][row, q]
    ids = ids[:, : int((ids != PAD).sum(1).max())]  # padding is masked: it would only cost time
    text = model.text(ids)
    match, none = model.select(regions[row], slots[row], scores[row], text, ids)
    meant = batch["states"][row, q].gather(1, index[row]).float()
    target = torch.where(state[row] == 1, meant, torch.zeros_like(meant))
    known = torch.where(state[row] == 1, meant >= 0, (state[row] == 0) | ((state[row] == -1) & (meant == 0)))
    known &= scores[row] >= 0.05
    positive = (target == 1) & known
    weight = known.float()
    probability = match.sigmoid()
    focus = torch.where(positive, 1 - probability, probability).detach() ** 1.0 + 0.05
    raw = F.binary_cross_entropy_with_logits(match, positive.float(), reduction="none")
    bce = (raw * weight * focus).sum() / positive.sum().clamp(min=1)
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
    return {"match": bce, "none": none_loss, "compete": compete}


WEIGHTS = {"heat": 1.0, "box": 2.0, "dense_class": 0.5, "class": 0.5, "colour": 0.4, "match": 1.0, "none": 0.4, "compete": 0.4}


def total(model, batch, real_share):
    """(weighted sum, every part as a number)."""
    fused, small = model.vision.encode(batch["pixels"])
    heat, boxes = model.vision.proposals(fused)
    parts = dense_losses(model, fused, heat, boxes, batch)
    slots, scores = choose_slots(model, heat, boxes, batch, real_share)
    regions = model.vision.regions(fused, small, slots)
    index, state = assign(slots, batch)
    parts |= region_losses(model, regions, index, state, batch)
    parts |= select_losses(model, regions, slots, scores, index, state, batch)
    loss = sum(WEIGHTS[name] * value for name, value in parts.items())
    return loss, {name: float(value.detach()) for name, value in parts.items()}
