"""The image side: encoder, proposals and region tokens.

Dense 3x3 convolutions only: on a CPU they run near peak, while depthwise ones are bound by memory.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import Layer, box_features, half_precision
from .spec import DIM, GRID_H, GRID_W, HEADS, HEIGHT, REGIONS, STRIDE, WIDTH

CHANNELS = (32, 64, 128, 192)  # at strides 4, 8, 16, 32
BLOCKS = (0, 2, 3, 1)
CONTEXT = 1                    # transformer layers over the stride-32 tokens
FUSED = 64
TOWER = 48
ROI = 4                        # samples a side, of the fused map
ROI_RGB = 6                    # samples a side, of the shrunken image itself: colours need no learning there


def conv(inputs, outputs, size=3, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = conv(channels, channels // 2, 1)
        self.second = nn.Sequential(nn.Conv2d(channels // 2, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        return F.relu(x + self.second(self.first(x)))


class Encoder(nn.Module):
    """Pixels to the fused stride-8 map, with a transformer layer over the stride-32 tokens for context."""

    def __init__(self):
        super().__init__()
        c = CHANNELS
        self.stem = nn.Sequential(
            nn.Conv2d(3, c[0], 7, 4, 3, bias=False), nn.BatchNorm2d(c[0]), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList()
        for i, (channels, count) in enumerate(zip(c, BLOCKS)):
            down = [conv(c[i - 1], channels, 3, 2)] if i else []
            self.stages.append(nn.Sequential(*down, *[Residual(channels) for _ in range(count)]))
        self.place = nn.Parameter(torch.randn(1, (HEIGHT // 32) * (WIDTH // 32), c[3]) * 0.02)
        self.context = nn.ModuleList(Layer(c[3], HEADS) for _ in range(CONTEXT))
        self.lateral = nn.ModuleList(nn.Conv2d(ch, FUSED, 1) for ch in c)
        self.merge16 = conv(FUSED, FUSED)
        self.merge8 = conv(FUSED, FUSED)

    def forward(self, x):
        maps = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2) + self.place
        for layer in self.context:
            tokens = layer(tokens)
        top = tokens.transpose(1, 2).reshape(b, c, h, w)
        p32 = self.lateral[3](top)
        p16 = self.merge16(self.lateral[2](maps[2]) + F.interpolate(p32, scale_factor=2.0))
        fine = F.avg_pool2d(maps[0], 2)
        return self.merge8(self.lateral[1](maps[1]) + self.lateral[0](fine) + F.interpolate(p16, scale_factor=2.0))


class Proposals(nn.Module):
    """Class-agnostic objectness and left/top/right/bottom distances on the fused map."""

    def __init__(self):
        super().__init__()
        self.tower = conv(FUSED, TOWER)
        self.heat = nn.Conv2d(TOWER, 1, 1)
        self.sides = nn.Conv2d(TOWER, 4, 1)
        nn.init.constant_(self.heat.bias, -3.0)
        nn.init.normal_(self.sides.weight, std=0.01)
        nn.init.constant_(self.sides.bias, 0.7)
        ys, xs = torch.meshgrid(torch.arange(GRID_H), torch.arange(GRID_W), indexing="ij")
        centres = torch.stack([xs, ys], -1).reshape(1, -1, 2).float() + 0.5
        self.register_buffer("centres", centres.contiguous() * STRIDE, persistent=False)
        self.register_buffer("canvas", torch.tensor([WIDTH, HEIGHT] * 2).float(), persistent=False)

    def forward(self, fused):
        """Objectness logits [B,N] and boxes [B,N,4] (xyxy, 0..1, unclipped) for every cell."""
        with half_precision(self.training):
            x = self.tower(fused)
        x = x.float()
        heat = self.heat(x).flatten(1)
        sides = self.sides(x).flatten(2).transpose(1, 2).clamp(-3.0, 4.6).exp() * STRIDE
        boxes = torch.cat([self.centres - sides[..., :2], self.centres + sides[..., 2:]], -1) / self.canvas
        return heat, boxes

    @staticmethod
    def peaks(heat, boxes, count=REGIONS):
        """The best local maxima, sorted: (boxes [B,K,4], objectness [B,K])."""
        grid = heat.sigmoid().reshape(-1, 1, GRID_H, GRID_W)
        highest = F.max_pool2d(grid, 3, 1, 1)
        peak = (grid * (grid == highest).to(grid.dtype)).flatten(1)
        objectness, index = peak.topk(count, dim=1)
        chosen = torch.gather(boxes, 1, index.unsqueeze(-1).expand(-1, -1, 4))
        return chosen.clamp(0.0, 1.0), objectness


def sample(features, boxes, side):
    """side x side bilinear samples inside every box: [B,K,C*side*side]."""
    b, k = boxes.shape[:2]
    steps = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5) / side
    x = boxes[..., 0:1] + (boxes[..., 2:3] - boxes[..., 0:1]) * steps
    y = boxes[..., 1:2] + (boxes[..., 3:4] - boxes[..., 1:2]) * steps
    x = x.unsqueeze(2).expand(b, k, side, side)
    y = y.unsqueeze(3).expand(b, k, side, side)
    grid = torch.stack([x, y], -1).reshape(b, k, side * side, 2) * 2 - 1
    picked = F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return picked.permute(0, 2, 1, 3).reshape(b, k, features.shape[1] * side * side)


class Regions(nn.Module):
    """One token a box: what the fused map and the image show inside it, and where it is."""

    def __init__(self):
        super().__init__()
        self.look = nn.Linear(FUSED * ROI * ROI, DIM)
        self.colour = nn.Sequential(nn.Linear(3 * ROI_RGB * ROI_RGB, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        self.place = nn.Linear(box_features.width, DIM)
        self.mix = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))
        self.norm = nn.LayerNorm(DIM)

    def forward(self, fused, image, boxes):
        x = self.look(sample(fused, boxes, ROI)) + self.colour(sample(image, boxes, ROI_RGB))
        x = x + self.place(box_features(boxes))
        return self.norm(x + self.mix(x))


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.proposals = Proposals()
        self.regions = Regions()

    @staticmethod
    def normalise(pixels):
        return (pixels.permute(0, 3, 1, 2).float() - 114.0) / 64.0

    def encode(self, pixels):
        """uint8 NHWC -> (fused map, image shrunk by 4 for colours)."""
        image = self.normalise(pixels)
        with half_precision(self.training):
            fused = self.encoder(image.contiguous(memory_format=torch.channels_last) if self.training else image)
        return fused.float(), F.avg_pool2d(image, 4)

    def forward(self, pixels):
        fused, small = self.encode(pixels)
        heat, boxes = self.proposals(fused)
        chosen, objectness = self.proposals.peaks(heat, boxes)
        return chosen, objectness, self.regions(fused, small, chosen)


def silence_context(model):
    """Turns the layer over the coarsest tokens into the identity. In 0.1.0 it had learned its scenes by heart:
    without it, unknown cameras were read far better (see MODEL_CARD.md)."""
    encoder = model.vision.encoder
    with torch.no_grad():
        encoder.place.zero_()
        encoder.place.requires_grad_(False)
        for layer in encoder.context:
            for linear in (layer.out, layer.mlp[-1]):
                linear.requires_grad_(False)
                linear.weight.zero_()
                linear.bias.zero_()
