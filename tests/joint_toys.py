"""A joint diffusion model whose images, features and logits can be told by hand."""

from __future__ import annotations

import torch
from torch import nn

from lit_gen.core.types import Batch, ImageSpec
from lit_gen.diffusion.path import Table, linear
from lit_gen.families.joint_diffusion import JointDiffusion
from lit_gen.nets.unet import Features, UNet

SPEC = ImageSpec(1, 8, 4)


class Through(nn.Module):
    """Takes x_t for the image; its features are x_t and its double, and it keeps what it goes on from."""

    num_features = 2
    first_half = ()

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def features(self, x, told, condition=None):
        return Features((x,), 2 * x, told)

    def rest(self, features):
        self.seen = features
        return self.weight * features.skips[0]

    def forward(self, x, told, condition=None):
        return self.rest(self.features(x, told, condition))


class LinearHead(nn.Module):
    """Logits in proportion to the brightness: the darkest are of class 0, the brightest of class 3."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[-3.0, -1, 1, 3], [0, 0.5, -0.5, 0]]))

    def forward(self, features, time):
        return features @ self.weight


def linear_model(**options) -> JointDiffusion:
    model = JointDiffusion(SPEC, Through(), Table(linear(50)), "x0", **options)
    model.head = LinearHead()
    return model.eval()


def small_model(**options) -> JointDiffusion:
    """With a U-Net that has all its parts."""
    torch.manual_seed(0)
    net = UNet(1, 8, 8, (1, 2), 1, attention=())
    nn.init.normal_(net.out[-1].weight, std=0.1)  # so that gradients reach every part from the start
    return JointDiffusion(SPEC, net, Table(linear(50)), **options)


def batch_of(labels) -> Batch:
    label = torch.tensor(labels)
    torch.manual_seed(1)
    index = torch.arange(len(label))
    return Batch(torch.rand(len(label), 1, 8, 8) * 2 - 1, label, torch.zeros_like(index), index)
