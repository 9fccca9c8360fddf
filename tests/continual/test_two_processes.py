"""Models that draw, count and fit across processes, trained on two: one start for all, the dearest part."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from joint_toys import small_model
from multiband_gan_toys import make_multiband_gan
from multiband_toys import make_multiband
from processes import together
from toys import SPEC, ToyGenerator, make_data, make_trainer

from lit_gen.continual.joint_replay import JointReplay
from lit_gen.continual.replay import GenerativeReplay
from lit_gen.continual.solver import Solver
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Phase
from lit_gen.families.autoencoder import Autoencoder
from lit_gen.families.classifier import Classifier
from lit_gen.families.samplers import DiffusionSampler
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder

INVERTING = {"current_pairs": "inversion", "inversion_steps": 3, "max_images": 100}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both processes ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    together(2, _train, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multiband", "multiband_gan", "joint_replay", "solver", "autoencoder"])
def test_both_end_with_the_same_weights(ranks, name):
    first, second = (rank[name] for rank in ranks)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("multiband_noise", None), ("multiband_gan_noise", 4)])
def test_each_replays_images_of_its_own(ranks, name, count):
    """`count` is int(8 * 0.5)."""
    for ours, theirs in zip(*(rank[name] for rank in ranks), strict=True):
        assert len(ours) == len(theirs) == (count or len(ours))
        assert not torch.equal(ours, theirs)


@pytest.mark.slow
def test_every_image_of_every_shard_counts_once(ranks):
    counted = ranks[0]["multiband"]["prior.num_counted"].flatten().tolist()
    assert counted[:2] == [float(task.num_images) for task in make_data(num_tasks=2).tasks]
    number = make_data(num_tasks=2).tasks[1].num_images
    noise = ranks[0]["multiband_gan"]["found.noise"]
    assert noise[:number].ne(0).all() and noise[number:].eq(0).all()


@pytest.mark.slow
def test_the_fitted_density_is_the_one_that_one_process_would_fit(ranks):
    # The same weights in one process: the density alone is fitted again.
    expected, alone = ranks[0]["autoencoder"], make_autoencoder()
    alone.load_state_dict(expected)
    alone.density.num_fitted.zero_()
    # Its place among the phases seeds the fit.
    density = alone.phases(None)[-1]
    alone.phases = lambda task: (Phase.single("nothing", lambda batch, done: {}, ()), density)
    fit_stages(make_trainer(), alone, make_data(num_tasks=1, batch_size=7))
    assert int(alone.density.num_fitted) == 160
    for name, value in expected.items():
        torch.testing.assert_close(alone.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def make_autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(
        SPEC,
        DenseEncoder(1, 8, 3, (16,)),
        DenseDecoder(1, 8, 3, (16,)),
        latent_size=3,
        ex_post="mixture",
        num_components=3,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
    )


def _train(folder: Path) -> None:
    """What each of two processes runs."""
    ended = {}

    def fit(name, model, data, **settings):
        trainer = make_trainer(devices=2, limit_val_batches=0, **{"strategy": "ddp"} | settings)
        fit_stages(trainer, model, data)
        if name in ("multiband_gan", "joint_replay"):
            # As after every task of a run: batch norm's averages of the last step are rank 0's from here on.
            trainer.test(model, datamodule=data, verbose=False)
        ended[name] = model.state_dict()
        return trainer

    model = make_multiband(similarity=0.5, batch_size=8)
    noise = ended["multiband_noise"] = []
    draw = model.prior.draw_shared

    def noted_draw(count: int, num_tasks: int) -> tuple[torch.Tensor, torch.Tensor]:
        code, task = draw(count, num_tasks)
        noise.append(code[:, :3])
        return code, task

    model.prior.draw_shared = noted_draw
    clipped = {"gradient_clip_val": 4.0, "gradient_clip_algorithm": "value"}
    fit("multiband", model, make_data(num_tasks=2, batch_size=8), **clipped)

    gan = make_multiband_gan(2, batch_size=8, **INVERTING)
    replayed = ended["multiband_gan_noise"] = []
    align_loss = gan.align_loss

    def noted_loss(pool, progress):
        replayed.append(pool.noise[pool.is_replayed])
        return align_loss(pool, progress)

    gan.align_loss = noted_loss
    unused = {"strategy": "ddp_find_unused_parameters_true"}
    fit("multiband_gan", gan, make_data(num_tasks=2, batch_size=8), **unused)

    draws = DiffusionSampler(steps=2, progress=False)
    joint = JointReplay(small_model(), num_tasks=2, per_class=8, sampler=draws)
    joint.local.make_optimizer = joint.make_optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    fit("joint_replay", joint, make_data(num_tasks=2, batch_size=8))
    solver = Solver(GenerativeReplay(ToyGenerator(1), 2), Classifier(SPEC), 2, pool_size=30)
    fit("solver", solver, make_data(num_tasks=2, batch_size=8))

    # 80 images each, in batches of 9 and 8.
    trainer = fit("autoencoder", make_autoencoder(), make_data(num_tasks=1, batch_size=9))
    torch.save(ended, folder / f"{trainer.global_rank}.pt")
    trainer.strategy.barrier()
