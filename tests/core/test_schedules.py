"""Learning-rate factors against torch's own schedulers."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR

from lit_gen.core.schedules import Cosine, Exponential, LinearDecay


def rates(make, epochs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Exponential(0.98, 70), lambda o: ExponentialLR(o, 0.98)),
        (Cosine(), lambda o: CosineAnnealingLR(o, 70)),
        (LinearDecay(0.6), lambda o: LambdaLR(o, lambda epoch: 1 - max(0, epoch - 42) / 28)),
        (LinearDecay(1.0), lambda o: LambdaLR(o, lambda epoch: 1.0)),
    ],
)
def test_factors_at_epoch_starts_are_those_of_torch(ours, theirs):
    assert [ours(epoch / 70) for epoch in range(70)] == pytest.approx(rates(theirs, 70))


def test_exponential_keeps_its_rate_within_an_epoch():
    schedule = Exponential(0.5, 3)
    assert [schedule(p) for p in (0.0, 0.3, 1 / 3, 0.5, 2 / 3, 0.99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_cosine_warms_up_in_a_line():
    schedule = Cosine(floor=0.1, warmup=0.2)
    assert schedule(0.1) == pytest.approx(0.5)
    assert schedule(0.2) == pytest.approx(1.0)
    assert schedule(1.0) == pytest.approx(0.1)
