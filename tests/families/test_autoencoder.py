"""The autoencoder's loss by hand, and whole runs in which its density is fitted."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from toys import SPEC, CopyingCheckpoints, make_data, make_trainer

from lit_gen.continual.replay import GenerativeReplay
from lit_gen.core.images import to_float
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Batch
from lit_gen.families.autoencoder import Autoencoder
from lit_gen.losses.activity import AbsoluteActivity
from lit_gen.losses.contractive import JacobianContraction, LayerContraction
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.corruption import Masking
from lit_gen.nets.mlp import DenseDecoder, DenseEncoder
from lit_gen.nets.sparse import KeepLargest


def make(latent_size=3, hidden=(8,), **options):
    torch.manual_seed(7)
    return Autoencoder(
        encoder=DenseEncoder(1, SPEC.size, latent_size, hidden),
        decoder=DenseDecoder(1, SPEC.size, latent_size, hidden),
        latent_size=latent_size,
        spec=SPEC,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
        **options,
    )


def batch_of(n=6):
    torch.manual_seed(1)
    image = torch.rand(n, 1, 8, 8) * 2 - 1
    return Batch(image, *[torch.zeros(n, dtype=torch.long)] * 2, torch.arange(n))


def test_the_loss_is_the_error_plus_the_weighted_penalty():
    model, batch = make(penalty=AbsoluteActivity(), penalty_weight=0.5, activation=nn.ReLU()), batch_of()
    terms = model.step(batch, 0.3)
    code = model.encoder(batch.image).relu()
    error = squared_error(model.decoder(code), batch.image).mean()
    torch.testing.assert_close(terms["reconstruction"], error)
    torch.testing.assert_close(terms["penalty"], code.sum(1).mean())
    torch.testing.assert_close(terms["loss"], error + 0.5 * code.sum(1).mean())
    assert torch.equal(model.encode(batch), code)
    assert make().step(batch, 0.3).keys() == {"loss", "reconstruction"}


def test_a_contractive_one_sees_the_encoder_with_its_activation():
    batch = batch_of()
    settings = {"hidden": (), "activation": nn.Sigmoid()}
    closed, exact = (make(penalty=p, **settings) for p in (LayerContraction(), JacobianContraction()))
    torch.testing.assert_close(closed.step(batch, 0.0), exact.step(batch, 0.0))
    with torch.no_grad():
        torch.testing.assert_close(closed.evaluate(batch), exact.evaluate(batch))


def test_a_denoising_one_sees_corrupted_images_and_aims_at_clean_ones():
    model, batch = make(corruption=Masking(0.4)), batch_of()
    torch.manual_seed(2)
    terms = model.evaluate(batch)
    torch.manual_seed(2)
    corrupted = batch._replace(image=Masking(0.4)(batch.image))
    assert not torch.equal(corrupted.image, batch.image)
    error = squared_error(model.reconstruct(corrupted), batch.image).mean()
    torch.testing.assert_close(terms["reconstruction"], error)
    clean = squared_error(model.reconstruct(batch), batch.image).mean()
    torch.testing.assert_close(terms["clean_reconstruction"], clean)
    assert terms["clean_reconstruction"] != terms["reconstruction"]


@pytest.mark.parametrize(
    ("activation", "is_valid"),
    [
        (KeepLargest(2), lambda z: ((z != 0).sum(1) <= 2).all()),
        (nn.Sigmoid(), lambda z: ((z > 0) & (z < 1)).all()),
    ],
    ids=["k-sparse", "sigmoid"],
)
def test_codes_are_drawn_before_the_activation_so_that_drawn_codes_are_valid(activation, is_valid):
    model, batch = make(latent_size=6, ex_post="gaussian", activation=activation), batch_of(30)
    (_, phase), seen = model.phases(None), []
    phase.begin(None)
    with torch.no_grad():
        phase.turns[0].loss(batch, 1.0)
    phase.end(None)
    raw = model.encoder(batch.image).detach()
    torch.testing.assert_close(model.density.means[0], raw.mean(0))
    model.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert model.sample(40).shape == (40, 1, 8, 8)
    assert is_valid(seen[0])


def run(folder, model, ckpt_path=None):
    saver = CopyingCheckpoints(folder, every_seconds=0.0)
    trainer, data = make_trainer(saver, limit_val_batches=1), make_data()

    def after_task(task):
        trainer.test(model, datamodule=data, verbose=False)
        saver.save(trainer, task)

    fit_stages(trainer, model, data, ckpt_path, after_task)
    return model, data


def codes_of(model, data, task):
    images = data.dataset("train", [task])
    batch = images.__getitems__(list(range(len(images))))
    with torch.no_grad():
        return model.encoder(to_float(batch.image))


def test_a_run_ends_with_the_density_of_the_last_tasks_codes(tmp_path):
    model, data = run(tmp_path, make(ex_post="gaussian"))
    codes = codes_of(model, data, task=1)
    assert int(model.density.num_fitted) == len(codes) == data.tasks[1].num_images
    torch.testing.assert_close(model.density.means[0], codes.mean(0), rtol=1e-4, atol=1e-5)
    covariance = (model.density.factors @ model.density.factors.mT)[0]
    torch.testing.assert_close(covariance, codes.T.cov(correction=0), rtol=1e-3, atol=1e-5)
    assert model.density._codes == []


def test_resuming_from_any_checkpoint_restores_or_repeats_the_fit_exactly(tmp_path):
    whole, _ = run(tmp_path / "whole", make(ex_post="mixture", num_components=3))
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    assert len(copies) == 4  # one epoch and the end of each task
    for copy in copies:
        resumed, _ = run(tmp_path / copy.stem, make(ex_post="mixture", num_components=3), copy)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), f"{name} after {copy.name}"


def test_generative_replay_fits_the_density_to_replayed_images_too(tmp_path):
    learner = make(ex_post="gaussian")
    model, data = run(tmp_path, GenerativeReplay(learner, num_tasks=2))
    # Half an image is replayed for each of the second task's.
    batches = data.predict_dataloader()
    replayed = sum(len(batch.image) // 2 for batch in batches)
    assert int(learner.density.num_fitted) == data.tasks[1].num_images + replayed
    assert int(model.teacher.net.density.num_fitted) == data.tasks[0].num_images
