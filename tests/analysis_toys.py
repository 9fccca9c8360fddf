"""A model whose codes and errors can be told by hand, and contexts made of it."""

from __future__ import annotations

import functools

import torch

from datamodules.synthetic import SyntheticData
from datamodules.tasks import NoSplit
from lit_gen.core.module import LitGenerator
from lit_gen.core.types import ImageSpec
from lit_gen.evaluation.context import Context

SPEC = ImageSpec(channels=1, size=8, num_classes=4)

# Words of a training that takes a second.
TINY = [
    "data=synthetic",
    "data.num_images=96",
    "data.num_test_images=48",
    "data.spec.size=8",
    "data.spec.num_classes=4",
    "data.batch_size=16",
    "logger=csv",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "checkpoint.min_seconds=0",
    "judges=none",
    "callbacks=progress",
    "cpu_threads=1",
]
VAE = [
    "model=vae",
    "model.latent_size=4",
    "model.encoder.hidden=[16]",
    "model.decoder.hidden=[16]",
    "model.condition=label",
]


class FirstPixels(LitGenerator):
    """The code of an image is its first pixels; all other pixels of what a code becomes are grey."""

    conditions = frozenset({"label"})

    def __init__(self, latent_size: int = 6, noise: float = 0.0) -> None:
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=0.5))
        self.latent_size, self.noise = latent_size, noise
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.told: list[list[int]] = []  # labels given to decode, call by call

    @torch.no_grad()
    def encode(self, batch):
        code = batch.image.flatten(1)[:, : self.latent_size]
        return code + self.noise * torch.randn_like(code)

    @torch.no_grad()
    def decode(self, codes, *, label=None, task=None):
        self.told.append(label.tolist())
        image = torch.zeros(len(codes), 64)
        image[:, : self.latent_size] = codes
        return image.view(-1, 1, 8, 8)

    @torch.no_grad()
    def reconstruct(self, batch):
        return self.decode(self.encode(batch), label=batch.label, task=batch.task)

    @torch.no_grad()
    def sample(self, n, *, label=None, task=None):
        """Every class is one grey level."""
        self.refuse(label=label, task=task)
        return (label / 4 - 0.5).float().view(-1, 1, 1, 1).expand(n, 1, 8, 8).clone()


class OnlySamples(LitGenerator):
    """Has no codes and takes no condition."""

    def __init__(self) -> None:
        super().__init__(spec=SPEC, optimizer=functools.partial(torch.optim.SGD, lr=0.5))


def make_context(model=None, name="toy", kind="toy", seed=0, **settings) -> Context:
    """On 96 training and 40 test images of four classes."""
    data = SyntheticData(
        **({"spec": SPEC, "split": NoSplit(), "num_images": 96, "num_test_images": 40} | settings)
    )
    data.setup()
    model = FirstPixels() if model is None else model
    return Context(model.eval(), data, 1, name, kind, seed=seed, batch_size=16)


def test_images(context: Context) -> torch.Tensor:
    """All of them, float32 in [-1, 1]."""
    images = context.images("test")
    return context.load(images, torch.arange(len(images))).image


test_images.__test__ = False  # a function for tests, none of them
