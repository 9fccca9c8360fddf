"""ResNet-18 against torchvision's, with the same first convolution and the same weights."""

import torch
from torch import nn
from torchvision.models import resnet18

from lit_gen.nets.resnet import ResNet18


def test_it_is_torchvisions_without_the_first_halvings():
    torch.manual_seed(0)
    other = resnet18(num_classes=10)
    other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    net = ResNet18(3, 10)
    assert sum(p.numel() for p in net.parameters()) == 11_173_962
    theirs = {name: value for name, value in other.state_dict().items() if not name.endswith("tracked")}
    downs = [name for name in theirs if "downsample" in name]
    in_order = [name for name in theirs if name not in downs]
    mine = [name for name in net.state_dict() if not name.endswith("tracked")]
    bypasses = [name for name in mine if "bypass" in name]
    pairs = zip([n for n in mine if n not in bypasses] + bypasses, in_order + downs, strict=True)
    net.load_state_dict({name: theirs[source] for name, source in pairs}, strict=False)
    image = torch.randn(2, 3, 16, 16)
    features, logits = net.eval()(image)
    torch.testing.assert_close(logits, other.eval()(image))
    assert features.shape == (2, net.num_features)
