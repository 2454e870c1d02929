"""Florence-2's vision tower, DaViT: windows of cells and groups of channels take turns. Its picture's size is fixed."""

import torch
from torch import nn
from torch.nn import functional as F

from . import blocks


def sides(vision, side):
    """The side of the picture, then of the cells after every stage."""
    found = [side]
    for stage in vision.convs:
        found.append((found[-1] + 2 * stage.padding - stage.patch_size) // stage.stride + 1)
    return found


class Tower(nn.Module):
    """pixel_values -> image_features: one token for the picture as a whole, then one a cell."""

    def __init__(self, model, side):
        super().__init__()
        self.vision, self.project = model.vision_tower, model.multi_modal_projector
        self.sides = sides(self.vision, side)

    def attend(self, own, x, count, scale):
        """[batch, length, dim], over the second axis."""
        batch, length, dim = x.shape[0], x.shape[1], x.shape[2]
        qkv = blocks.linear(own.qkv, x).reshape(batch, length, 3, count, dim // count).permute(2, 0, 3, 1, 4)
        return blocks.linear(own.proj, blocks.attention(qkv[0], qkv[1], qkv[2], None, scale)).float()

    def windows(self, own, x, side):
        """Attention within windows of a square of `side` cells; those at the edge are filled up with zeros, unmasked:
        so was it trained."""
        size, dim = own.window_size, own.dim
        room = -side % size
        across = (side + room) // size
        x = F.pad(x.reshape(-1, side, side, dim), (0, 0, 0, room, 0, room))
        x = x.reshape(-1, across, size, across, size, dim).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, dim)
        x = self.attend(own, x, own.num_heads, own.scale)
        x = x.reshape(-1, across, across, size, size, dim).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, side + room, side + room, dim)[:, :side, :side].reshape(-1, side * side, dim)

    def channels(self, own, x, side):
        """Attention between channels instead of between places."""
        places, groups = side * side, own.groups
        qkv = blocks.linear(own.qkv, x).reshape(-1, places, 3, groups, own.dim // groups).permute(2, 0, 3, 4, 1)
        scores = torch.matmul(qkv[0], qkv[1].transpose(2, 3)).float() * places ** -0.5
        mixed = torch.matmul(torch.softmax(scores, dim=-1).to(qkv[2].dtype), qkv[2])
        return blocks.linear(own.proj, mixed.permute(0, 3, 1, 2).reshape(-1, places, own.dim)).float()

    def block(self, own, attention, mix, x, side):
        """[batch, side*side, dim] through one spatial or channel block."""
        dim = x.shape[2]

        def near(conv, x):
            picture = x.transpose(1, 2).reshape(-1, conv.in_channels, side, side)
            return x + blocks.conv(conv, picture).flatten(2).transpose(1, 2)

        x = near(own.conv1, x)
        x = x + mix(attention, blocks.layer_norm(own.norm1, x), side)
        x = near(own.conv2, x)
        fed = own.ffn.activation_fn(blocks.linear(own.ffn.fc1, blocks.layer_norm(own.norm2, x)))
        return x + blocks.linear(own.ffn.fc2, fed).float()

    def embed(self, stage, x, side):
        """A strided convolution, normed before or after."""
        if stage.pre_norm:
            x = blocks.layer_norm(stage.norm, x)
        picture = x.transpose(1, 2).reshape(-1, stage.in_channels, side, side)
        x = blocks.conv(stage.conv, picture).flatten(2).transpose(1, 2)
        return x if stage.pre_norm else blocks.layer_norm(stage.norm, x)

    def forward(self, pixel_values):
        x = pixel_values.flatten(2).transpose(1, 2)
        for i, (stage, layers) in enumerate(zip(self.vision.convs, self.vision.blocks)):
            x, side = self.embed(stage, x, self.sides[i]), self.sides[i + 1]
            for layer in layers:
                spatial, channel = layer.spatial_block, layer.channel_block
                x = self.block(spatial, spatial.window_attn, self.windows, x, side)
                x = self.block(channel, channel.channel_attn, self.channels, x, side)
        project = self.project
        places = project.image_position_embed
        across, down = places.column_embeddings.weight[:side].float(), places.row_embeddings.weight[:side].float()
        at = torch.cat((across[None].expand(side, -1, -1), down[:, None].expand(-1, side, -1)), dim=2)
        x = x + at.reshape(side * side, -1) + project.visual_temporal_embed.pos_idx_to_embed[0]
        x = torch.cat((x.mean(dim=1, keepdim=True), x), dim=1)
        return blocks.layer_norm(project.image_proj_norm, blocks.linear(project.image_projection, x))
