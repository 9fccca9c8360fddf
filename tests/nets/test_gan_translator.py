"""The translator of Multiband GAN: published sizes, and what it computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lit_gen.nets.dcgan import ConvGenerator
from lit_gen.nets.translator import Band, EmbeddingTranslator


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("channels", "size", "width", "of_generator"),
    [(1, 28, 32, 716_798), (3, 32, 128, 15_406_176), (3, 64, 50, 5_298_728)],
)
def test_generators_with_a_translator_have_the_published_sizes(channels, size, width, of_generator):
    with torch.device("meta"):
        translator = EmbeddingTranslator(100, num_values=5, hidden_size=400, out_size=100)
        band = Band(translator, ConvGenerator(channels, size, 100, width))
    assert count(translator) == 82_525
    assert count(band) == of_generator


def test_it_is_two_layers_over_the_noise_and_a_learned_row_of_each_task():
    torch.manual_seed(0)
    translator = EmbeddingTranslator(3, num_values=4, hidden_size=6, out_size=2)
    noise, task = torch.randn(5, 3), torch.tensor([0, 2, 2, 3, 0])
    weights = translator.state_dict()
    rows = torch.cat([noise, weights["embedding.weight"][task]], 1)
    hidden = F.leaky_relu(rows @ weights["out.0.weight"].T + weights["out.0.bias"], 0.2)
    torch.testing.assert_close(
        translator(noise, task), hidden @ weights["out.2.weight"].T + weights["out.2.bias"]
    )
    assert weights["embedding.weight"].shape == (4, 4)
