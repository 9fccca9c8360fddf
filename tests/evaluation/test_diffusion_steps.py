"""What the steps of a diffusion model do, with networks of known answers; drift between checkpoints."""

import dataclasses
import math

import pytest
import torch
from analysis_toys import make_context

from lit_gen.core.types import InputError
from lit_gen.diffusion.path import Straight, Table, linear
from lit_gen.evaluation.uses.diffusion_steps import Noising, SignalToNoise, Transfer, crossing
from lit_gen.evaluation.uses.drift import Drift, linear_cka
from lit_gen.evaluation.uses.step_probes import StepProbes
from lit_gen.families.diffusion import Diffusion
from lit_gen.metrics.features import FeatureExtractor


class Grey(torch.nn.Module):
    """Takes every image for a grey one."""

    def forward(self, x, told, condition=None):
        return torch.zeros_like(x)


class Brightness(FeatureExtractor):
    """Two classes: darker and brighter than grey."""

    name, num_features, num_logits, weights_hash = "brightness", 1, 2, ""

    def forward(self, image):
        level = image.float().flatten(1).mean(1, keepdim=True) - 127.5
        return level, torch.cat([-level, level], 1)


def context_of(path=None, net=None):
    context = make_context()
    torch.manual_seed(0)
    model = Diffusion(context.model.spec, net, path or Table(linear(50)), "x0" if net else "eps")
    return dataclasses.replace(context, model=model.eval())


def test_ratios_and_divergences_of_a_model_that_sees_grey_are_known():
    context = context_of(net=Grey())
    image = context.load(context.images("test"), torch.arange(40)).image
    found = {row["t"]: row for row in SignalToNoise(n=40, points=50)(context).table}
    assert list(found) == list(range(2, 51))
    path = context.model.path
    for t in (2, 20, 50):
        beta, before = path.exact["beta"][t], path.exact["kept"][t - 1]
        signal = before * float(image.square().mean()) + 1 - before
        assert found[t]["forward_snr"] == pytest.approx((1 - beta) * signal / beta, rel=0.1)
        true = beta * (1 - before) / (1 - path.exact["kept"][t])
        gap = before * beta / (1 - path.exact["kept"][t]) ** 2 * beta * float(image.square().mean())
        nats = 0.5 * (math.log(beta / true) + true / beta - 1 + gap / beta)
        assert found[t]["kl"] == pytest.approx(nats / math.log(2), rel=0.02)


def test_a_model_that_sees_grey_everywhere_gives_no_image_back():
    found = Noising(n=40, points=4, columns=5)(context_of(net=Grey()), Brightness())
    image = context_of().load(context_of().images("test"), torch.arange(40)).image
    for row in found.table:
        assert row["mae"] == pytest.approx(float(image.abs().mean()), rel=1e-4)
    assert found.picture.ndim == 3


@pytest.mark.parametrize(
    ("points", "place"),
    [
        ([(1.0, 1.0), (2.0, 0.5)], 1.8),  # the middle between 1 and a chance of 0.2 is 0.6
        ([(1.0, 0.2)], 0.5),
        ([(1.0, 0.9), (2.0, 0.7)], math.nan),
        ([(1.0, math.nan)], math.nan),
    ],
)
def test_the_transition_is_where_the_share_falls_below_the_middle(points, place):
    assert crossing(points, 0.2) == pytest.approx(place, nan_ok=True)


def test_images_of_another_look_are_denoised_beside_the_own():
    context = context_of(net=Grey())
    table = Transfer(n=30, points=3)(context).table
    for row in table:  # inverted images are as far from grey as the own
        assert row["mse_own"] == pytest.approx(row["mse_invert"], rel=1e-4)
    given = Transfer(n=30, points=3).given(context, torch.full((4, 1, 8, 8), 255, dtype=torch.uint8))
    assert [row["mse_given"] for row in given.table] == pytest.approx([0.25] * 3, rel=1e-4)


def test_probes_look_at_every_time_and_depth():
    found = StepProbes(n=60, n_test=20, times=(0.0, 0.5), hidden=8)(context_of())
    assert [(row["t"], row["block"]) for row in found.table] == [
        (t, block) for t in (1.0, 25.0) for block in ("in.0", "in.1", "in.2", "in.3", "middle")
    ]
    assert all(0 <= row["linear"] <= 1 and 0 <= row["mlp"] <= 1 for row in found.table)


def test_linear_cka_is_the_one_of_gram_matrices():
    """Kornblith et al. 2019, eq. 4 with linear kernels; unchanged by rotation and scale."""
    torch.manual_seed(0)
    a, b = torch.randn(40, 5, dtype=torch.float64), torch.randn(40, 7, dtype=torch.float64)
    centre = torch.eye(40, dtype=torch.float64) - 1 / 40
    grams = [centre @ codes @ codes.T @ centre for codes in (a, b)]
    expected = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
    assert linear_cka(a, b) == pytest.approx(float(expected))
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    assert linear_cka(a, 3 * a @ turn + 1) == pytest.approx(1.0)
    assert math.isnan(linear_cka(a, torch.ones(40, 2)))


def test_a_model_that_stays_the_same_does_not_drift():
    one, two = make_context(), make_context()
    (row,) = Drift(n=40)([one, two]).table
    assert row["cka"] == pytest.approx(1.0) and row["shift"] == 0 and row["own"] == row["kept"] == row["new"]


def test_what_cannot_be_analysed_says_why():
    with pytest.raises(InputError, match="no chain of steps"):
        SignalToNoise()(dataclasses.replace(context_of(), model=_flow()))
    with pytest.raises(InputError, match="does not promise Diffuses"):
        Noising()(make_context(), Brightness())
    with pytest.raises(InputError, match="give two at least"):
        Drift()([make_context()])


def _flow():
    return Diffusion(make_context().model.spec, path=Straight(), output="v")
