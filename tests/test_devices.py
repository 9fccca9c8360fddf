"""One experiment on any number of devices: a global batch, its gradients, and a run that changes devices."""

from __future__ import annotations

import functools

import pytest
import torch
from processes import together
from torch import nn
from toys import make_data, make_trainer

from lit_gen.core.module import LitModel
from lit_gen.core.stages import check_stages, fit_stages
from lit_gen.core.types import ImageSpec, InputError

SPEC = ImageSpec(channels=1, size=8, num_classes=4)
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
TINY = (
    *("model=ae", "net=dense", "data=synthetic", "data.num_images=75", "data.num_test_images=8"),
    *("data.spec.size=8", "data.batch_size=null", "judges=none", "callbacks=[]", "logger=csv"),
    *("data.global_batch_size=32", "cpu_threads=1", "checkpoint.min_seconds=0"),
)


class Recorder(LitModel):
    """An autoencoder without noise that keeps the gradients of its steps."""

    def __init__(self) -> None:
        super().__init__(SPEC, functools.partial(torch.optim.SGD, lr=0.1))
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 64))
        self.seen: list[torch.Tensor] = []

    def step(self, batch, progress):
        return {"loss": (self.net(batch.image) - batch.image.flatten(1)).square().mean()}

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.seen.append(torch.cat([p.grad.flatten() for p in self.net.parameters()]).clone())


def gradients(file: str, **settings: object) -> None:
    """Writes the gradients of two epochs over 75 images in steps of 32: [6, P]; a last step has 11."""
    data = make_data(1, num_images=75, global_batch_size=32)
    model = Recorder()
    trainer = make_trainer(max_epochs=2, **settings)
    fit_stages(trainer, model, data)
    if trainer.is_global_zero:
        torch.save(torch.stack(model.seen), file)


def on_two(file: str) -> None:
    gradients(file, strategy="ddp", devices=2)


@pytest.mark.slow
def test_gradients_are_those_of_one_process_for_two_and_for_accumulated_batches(tmp_path):
    one, more, two = (str(tmp_path / name) for name in ("one", "more", "two"))
    gradients(one)
    gradients(more, accumulate_grad_batches=4)
    together(2, on_two, two)
    one, more, two = map(torch.load, (one, more, two))
    assert one.shape[0] == 6
    assert (one - two).abs().max() < 1e-6 * one.abs().max() and (
        one - more
    ).abs().max() < 1e-6 * one.abs().max()


def test_a_global_batch_that_does_not_divide_is_refused_with_what_would():
    data = make_data(1, global_batch_size=10)
    with pytest.raises(InputError, match=r"data.global_batch_size=10: .* 1 process.* 4 batch.* 8 or 12 can"):
        check_stages(make_trainer(accumulate_grad_batches=4), Recorder(), data)
    check_stages(make_trainer(accumulate_grad_batches=5), Recorder(), data)
    assert data.batch_size == 2
