"""Diffusion models: guidance, what is refused, the bound as a likelihood; DAED's routing."""

import copy
import functools
import math

import pytest
import torch
import toys

from callbacks.ema import AveragedWeights
from lit_gen.cli.config import compose
from lit_gen.cli.open_run import built_model
from lit_gen.continual.replay import GenerativeReplay
from lit_gen.core.types import Batch, ImageSpec, InputError, Task
from lit_gen.diffusion.consistency import ConsistencyTuning
from lit_gen.diffusion.path import EDM, Cosine, Straight, Table, linear, linear_combine
from lit_gen.diffusion.solvers import DDIM, Ancestral, Consistency, way
from lit_gen.diffusion.times import FirstStep, LogNormal, LossAware, Uniform
from lit_gen.families.daed import DAED
from lit_gen.families.diffusion import Diffusion
from lit_gen.families.samplers import DiffusionSampler, JoinedSampler, LatentSampler
from lit_gen.families.vae import VAE
from lit_gen.nets.unet import UNet

SPEC = ImageSpec(1, 8, 3)


def batch_of(count=6):
    torch.manual_seed(0)
    label = torch.arange(count) % 3
    return Batch(torch.rand(count, 1, 8, 8) * 2 - 1, label, torch.zeros_like(label), torch.arange(count))


class Flat(torch.nn.Module):
    """Says one number for each class, whatever it sees; 0 without a class."""

    def __init__(self, value=1.0):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def forward(self, x, told, condition=None):
        level = (
            self.value
            if condition is None
            else self.value * (condition @ torch.arange(1.0, 4))[:, None, None, None]
        )
        return level * torch.ones_like(x)


def test_guidance_goes_on_from_untold_to_told():
    model = Diffusion(SPEC, Flat(), Cosine(), "v", drop_condition=0.1, condition="label").eval()
    x, label = torch.randn(2, 1, 8, 8), torch.tensor([0, 2])

    def velocity(guidance):
        image, noise = model.denoiser(guidance, label=label)(x, 0.5).parts
        alpha = math.sqrt(0.5)
        return (alpha * noise - alpha * image)[:, 0, 0, 0]

    torch.testing.assert_close(velocity(0.0), torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(velocity(2.0), torch.tensor([3.0, 9.0]))  # (1 + w) told - w * 0


def test_no_guidance_is_the_unguided_way():
    torch.manual_seed(0)
    model = Diffusion(SPEC, path=Straight(), output="v", drop_condition=0.1, condition="label").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    label = torch.tensor([0, 1, 2])

    def drawn(sampler):
        model.sampler = sampler
        torch.manual_seed(1)
        return model.sample(3, label=label)

    plain = drawn(DiffusionSampler(DDIM(), 50))
    assert torch.equal(drawn(None), plain), "the own way is DDIM in 50 steps"
    assert torch.equal(drawn(DiffusionSampler(DDIM(), 50, guidance=0.0)), plain)
    assert not torch.equal(drawn(DiffusionSampler(DDIM(), 50, guidance=1.0)), plain)


def test_dropped_conditions_are_none_for_about_that_part():
    model = Diffusion(SPEC, Flat(), Cosine(), "v", drop_condition=0.25, condition="label").train()
    seen = []
    model.net.forward = lambda x, told, condition: seen.append(condition) or torch.zeros_like(x)
    batch = batch_of(12)
    for _ in range(200):
        model.step(batch, 0.0)
    assert float((torch.cat(seen).sum(1) == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    seen.clear()
    model.eval().step(batch, 0.0)
    assert (seen[0].sum(1) == 1).all()


def test_of_constant_images_the_bound_is_the_closed_form():
    """With a network that knows the image, divergences are those of the variances alone."""
    path, image = Table(linear(40, 1e-4)), torch.full((4, 1, 8, 8), 1 / 255)

    class Knows(torch.nn.Module):
        def forward(self, x, told, condition=None):
            return torch.full_like(x, 1 / 255)

    model = Diffusion(SPEC, Knows(), path, "x0")
    zeros = torch.zeros(4, dtype=torch.long)
    found = -model.log_likelihood(Batch(image, zeros, zeros, zeros), draws=1000)
    beta, kept = (torch.tensor(path.exact[name]) for name in ("beta", "kept"))
    true = beta[2:] * (1 - kept[1:-1]) / (1 - kept[2:])
    steps = 0.5 * ((beta[2:] / true).log() + true / beta[2:] - 1).sum()
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), true[0].sqrt())
    first = -(normal.cdf(torch.tensor(1 / 255)) - normal.cdf(torch.tensor(-1 / 255))).log()
    last = 0.5 * (kept[-1] / 255**2 + (1 - kept[-1]) - 1 - (1 - kept[-1]).log())
    torch.testing.assert_close(found, (64 * (steps + first + last)).float().expand(4), rtol=1e-4, atol=1e-3)


def test_fewer_draws_estimate_the_same_bound():
    torch.manual_seed(0)
    model = Diffusion(SPEC, Flat(0.0), path=Table(linear(60, 1e-4))).eval()
    batch = batch_of(64)
    whole = model.log_likelihood(batch, 60).mean()
    few = torch.stack([model.log_likelihood(batch, 10).mean() for _ in range(20)]).mean()
    assert float(few) == pytest.approx(float(whole), rel=0.03)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": Straight()}, "output=eps with path=Straight"),
        ({"path": Straight(), "output": "v", "objective": "bound"}, "only a chain"),
        ({"learns_variance": True}, "needs objective=bound or both"),
        ({"objective": "both"}, "both needs it"),
        ({"drop_condition": 0.1}, "drop_condition=0.1 with condition=none"),
        ({"path": Cosine(), "output": "v", "times": FirstStep()}, "times=FirstStep"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        Diffusion(SPEC, **change)


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (DiffusionSampler(steps=0), "steps=0"),
        (DiffusionSampler(steps=2000), "has 1000 steps"),
        (DiffusionSampler(guidance=1.0), "without a condition"),
        (DiffusionSampler(Ancestral("learned")), "learns_variance=false"),
        (LatentSampler(), "draws no codes"),
    ],
)
def test_samplers_that_cannot_draw_from_it_are_refused(sampler, said):
    with pytest.raises(ValueError, match=said):
        Diffusion(SPEC).sampler = sampler


def test_a_path_that_no_chain_is_has_no_ancestral_way():
    model = Diffusion(SPEC, path=Straight(), output="v")
    with pytest.raises(ValueError, match="solver=ancestral"):
        model.sampler = DiffusionSampler(Ancestral(), 10)
    with pytest.raises(ValueError, match="steps=null"):
        model.sampler = DiffusionSampler(steps=None)
    with pytest.raises(InputError, match="bound is that of a chain"):
        model.log_likelihood(batch_of(), 3)


def test_daed_routes_x_1_to_its_denoiser_and_nothing_else():
    model = DAED(SPEC, Flat(2.0), Flat(5.0), Table(linear_combine(900, 0.1)))
    x, t = torch.zeros(4, 1, 8, 8), torch.tensor([1.0, 2.0, 900.0, 1.0])
    for mode in (True, False):
        said, _ = model.train(mode).said(x, t, None)
        assert said[:, 0, 0, 0].tolist() == [5.0, 2.0, 2.0, 5.0]
    for step, value in ((1.0, 5.0), (7.0, 2.0)):
        said, _ = model.said(x, torch.full((4,), step), None)
        assert (said == value).all()


def test_both_networks_of_daed_get_gradients_even_without_images_of_theirs():
    model = DAED(SPEC, Flat(2.0), Flat(5.0), times=FirstStep(only=True)).train()
    model.step(batch_of(), 0.0)["loss"].backward()
    assert model.denoiser_net.value.grad != 0 and model.net.value.grad == 0


def test_every_way_of_daed_ends_with_its_denoiser():
    model = DAED(SPEC)
    for steps in (2, 20, 900):
        places = model.way(steps)
        assert len(places) == steps + 1 and [place.t for place in places[-2:]] == [1.0, 0.0]
    with pytest.raises(ValueError, match="2 are the least"):
        model.way(1)


def test_the_last_step_of_daed_is_without_noise():
    model = DAED(SPEC).eval()
    places = way(model.path, 900)[-2:]
    x = torch.randn(2, 1, 8, 8)
    image = model.denoiser()(x, 1.0).parts.image
    torch.testing.assert_close(Ancestral().solve(model.denoiser(), x, model.path, places), image)


def test_the_sizes_of_the_thesis():
    """Deja et al. 2022: parameters of their U-Nets for 28, 32 and 64 pixels."""
    with torch.device("meta"):
        nets = [
            UNet(1, 28, 64, (1, 2, 2), 3, (1,)),
            UNet(3, 32, 128, (1, 2, 2, 2), 3, (2, 4)),
            UNet(3, 64, 128, (1, 2, 3, 4), 3, (4, 8)),
        ]
    counts = [sum(p.numel() for p in net.parameters()) for net in nets]
    assert counts == [8_799_105, 52_542_979, 121_060_483]


def test_the_way_down_of_a_unet_can_be_taken_alone():
    torch.manual_seed(0)
    net = UNet(1, 8, 16, (1, 2), 1, (2,), condition_size=3).eval()
    torch.nn.init.normal_(net.out[-1].weight)
    x, time, told = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 700.0]), torch.eye(3)[:2]
    features = net.features(x, time, told)
    assert torch.equal(net.rest(features), net(x, time, told))
    pooled = features.pooled()
    assert list(pooled) == ["in.0", "in.1", "in.2", "in.3", "middle"]
    assert [list(value.shape) for value in pooled.values()] == [[2, 16], [2, 16], [2, 16], [2, 32], [2, 32]]
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(x, time, told), net(x, time, told))


def test_what_a_unet_cannot_halve_is_refused():
    with pytest.raises(InputError, match="multiple of 4"):
        UNet(1, 30, 16, (1, 2, 2))
    with pytest.raises(InputError, match="num_heads=3"):
        UNet(1, 8, 16, (1,), num_heads=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler=ddim", "sampler.steps=0"], "sampler.steps"),
        (["model=rectified_flow", "sampler=ancestral"], "solver=ancestral"),
        (["sampler=ddim", "sampler.guidance=2"], "guidance=2"),
        (["net=unet_medium", "data.spec.size=10"], "multiple of 4"),
    ],
)
def test_the_command_line_says_what_does_not_fit(words, said):
    with pytest.raises(InputError, match=said):
        built_model(compose("train", ["model=ddpm", "data=synthetic", *words]))


def test_stratified_times_of_a_batch_are_spread():
    torch.manual_seed(0)
    drawn = Uniform(stratified=True).draw(10, Straight(), torch.device("cpu")).t
    assert drawn.sort().values.diff().max() == pytest.approx(0.1, abs=1e-5)


def test_levels_of_consistency_tuning_come_closer_stage_by_stage():
    """Geng et al. 2024: r = t (1 - (1 + 8 sigmoid(-t)) / 2^(stage + 1)), and 0 where that is negative."""
    tuning = ConsistencyTuning(epochs=1, stages=4)
    for progress, stage in ((0.0, 0), (0.3, 1), (1.0, 3)):
        torch.manual_seed(0)
        t, r = tuning.draw(1000, progress, torch.device("cpu"))
        torch.testing.assert_close(r, (t * (1 - (1 + 8 * (-t).sigmoid()) / 2 ** (stage + 1))).clamp(min=0))
    torch.manual_seed(0)
    assert float(tuning.draw(50_000, 0.0, torch.device("cpu"))[0].log().mean()) == pytest.approx(
        -1.1, abs=0.03
    )


def test_a_model_that_names_the_same_image_everywhere_pays_nothing_for_consistency():
    class Knows(torch.nn.Module):
        """F for which the named image is x_0 = 0: c_skip x + c_out F(c_in x) = 0."""

        def forward(self, x, told, condition=None):
            level = (told / 250).exp().view(-1, 1, 1, 1)
            return -0.5 / level * x  # x comes divided by its spread

    model = Diffusion(SPEC, Knows(), EDM(), "F", times=LogNormal(), consistency=ConsistencyTuning(epochs=1))
    black = batch_of()._replace(image=torch.zeros(6, 1, 8, 8))
    assert float(model.consistency_step(black, 0.5)["distance"]) == pytest.approx(0, abs=1e-5)
    assert float(model.consistency_step(batch_of(), 0.0)["distance"]) > 0.1
    assert [phase.name for phase in model.phases(None)] == ["train", "consistency"]
    model.sampler = DiffusionSampler(Consistency(), 2)
    torch.testing.assert_close(model.sample(2), torch.zeros(2, 1, 8, 8), atol=1e-4, rtol=0)


def test_a_student_that_is_its_teacher_has_nothing_to_distil():
    torch.manual_seed(0)
    model = Diffusion(SPEC)
    assert float(model.distilled(batch_of(), copy.deepcopy(model))["loss"]) == 0
    other = Diffusion(SPEC, Flat(0.5))
    assert float(Diffusion(SPEC, Flat(2.0)).distilled(batch_of(), other)["loss"]) == pytest.approx(2.25)


def test_distilled_replay_weighs_both_losses_by_their_images():
    model = GenerativeReplay(Diffusion(SPEC, Flat(2.0)), num_tasks=2, distil=True)
    torch.nn.init.constant_(model.teacher.net.net.value, 0.5)
    batch = batch_of(8)
    batch = batch._replace(index=torch.tensor([0, 1, -1, -1, -1, -1, -1, -1]))
    loss = model.phases(Task(0, "all", (3, 3, 2), 0, 8))[0].turns[0].loss
    terms = loss(batch, 0.0)
    real = (terms["loss"] - 0.75 * terms["distilled"]) / 0.25
    assert float(terms["distilled"]) == pytest.approx(2.25)
    torch.testing.assert_close(real, terms["error"])
    with pytest.raises(ValueError, match="distil=true: VAE"):
        GenerativeReplay(VAE(SPEC), num_tasks=2, distil=True)


def test_a_model_joined_with_its_own_denoiser_draws_as_it_does_alone():
    torch.manual_seed(0)
    model = DAED(SPEC).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    joined = JoinedSampler(DiffusionSampler(DDIM(), 20), copy.deepcopy(model))
    results = []
    for sampler in (DiffusionSampler(DDIM(), 20), joined):
        model.sampler = sampler
        torch.manual_seed(1)
        results.append(model.sample(2))
    assert joined.switch(model) == 1
    torch.testing.assert_close(*results)


def test_the_switch_is_where_the_noise_is_the_denoisers():
    denoiser = DAED(SPEC)  # beta_1 = 0.1
    joined = JoinedSampler(DiffusionSampler(), denoiser)
    assert joined.switch(Diffusion(SPEC, path=Table(linear(500)))) == 33
    assert joined.switch(Diffusion(SPEC, path=Table(linear(1000, 1e-4)))) == 98
    with pytest.raises(ValueError, match="no chain of steps"):
        joined.check(Diffusion(SPEC, path=Straight(), output="v"))
    with pytest.raises(ValueError, match="works on images of 1 x 8 x 8"):
        joined.check(Diffusion(ImageSpec(1, 16, 0)))


@pytest.mark.parametrize("kind", ["loss-aware", "daed"])
def test_resuming_with_averages_is_exact(tmp_path, kind):
    def run(folder, ckpt_path=None):
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        small = {
            "net": UNet(1, 8, 8, (1, 2), 1, (2,)),
            "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        }
        if kind == "daed":
            model = DAED(toys.SPEC, denoiser_net=UNet(1, 8, 8, (1,), 1, (2,)), **small)
        else:
            times = LossAware(50, history=1)
            model = Diffusion(toys.SPEC, path=Table(linear(50)), times=times, **small)
        return toys.walk(folder, ckpt_path, model, [AveragedWeights(decay=0.9, warmup=True)], max_epochs=2)[0]

    whole = run(tmp_path / "whole")
    for kept in sorted((tmp_path / "whole").glob("copy-*.ckpt"))[::2]:
        toys.assert_same_state(whole, run(tmp_path / kept.stem, kept))
    if kind == "loss-aware":
        assert int(whole.times.counts.sum()) == 2 * 160, "one draw for every image of both epochs"
