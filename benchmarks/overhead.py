"""Images per second of `lit-gen train experiment=...` against a bare PyTorch loop with the same nets.

The bare loop keeps the images as one uint8 tensor, draws a permutation per epoch, uses the same loss and
fused Adam, and logs nothing. Ours has its progress bar, MLflow and checkpoints. Plain Adam is shown as well:
the loop that most people would write. Of experiments vae_mnist and diffusion_mnist, whose bare loop keeps no
averages; a limit of batches makes the epochs of the latter short.

    python benchmarks/overhead.py [experiment=vae_mnist] [root=data] [batch_size=64] [epochs=2] [rounds=5] \
        [batches=null]
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from timing import options, take_turns
from torch import Tensor

from lit_gen.cli.assembly import assemble
from lit_gen.cli.config import Composed, compose, recompose
from lit_gen.cli.lean import old_objects_left_alone
from lit_gen.cli.log import log_to
from lit_gen.cli.run_folder import RunFolder
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import StreamData
from lit_gen.families.diffusion import Diffusion
from lit_gen.families.vae import VAE
from lit_gen.losses.divergence import gaussian_kl
from lit_gen.losses.reconstruction import squared_error


class Watch(Callback):
    """Seconds from the first batch to the end of training, checkpoints included."""

    seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.seconds


def ours(composed: Composed) -> float:
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "runs" / "run")
        (folder.path / "checkpoints").mkdir(parents=True)
        seed_everything(0, verbose=False)
        parts = assemble(recompose(composed.source | {"output_dir": str(folder.path)}, []), folder, None, {})
        watch = Watch()
        parts.trainer.callbacks.append(watch)
        with old_objects_left_alone():
            fit_stages(parts.trainer, parts.module, parts.data)
        parts.record.finish("FINISHED")
        return _images(composed, parts.data) / watch.seconds


def bare(composed: Composed, fused: bool) -> float:
    seed_everything(0, verbose=False)
    data, model = composed.build("data"), composed.build("model")
    loss_of = LOSSES[composed.choices["experiment"]]
    data.prepare_data()
    data.setup()
    images = data.dataset("train", [0])[torch.arange(data.tasks[0].num_images)].image
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    trainer = composed.config["trainer"]
    start = time.perf_counter()
    for _ in range(trainer["max_epochs"]):
        for places in torch.randperm(len(images)).split(data.batch_size)[: trainer["limit_train_batches"]]:
            loss = loss_of(model, images[places].float().mul_(2 / 255).sub_(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _images(composed, data) / (time.perf_counter() - start)


def _images(composed: Composed, data: StreamData) -> int:
    trainer, images = composed.config["trainer"], data.tasks[0].num_images
    limit = trainer["limit_train_batches"]
    return trainer["max_epochs"] * (images if limit is None else min(images, limit * data.batch_size))


def _of_vae(vae: VAE, image: Tensor) -> Tensor:
    mean, log_var = vae.encoder(image).chunk(2, dim=1)
    code = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    return squared_error(vae.decoder(code), image).mean() + gaussian_kl(mean, log_var).mean()


def _of_flow(flow: Diffusion, image: Tensor) -> Tensor:
    t, noise = torch.randn(len(image)).sigmoid(), torch.randn_like(image)
    x = torch.lerp(image, noise, t.view(-1, 1, 1, 1))
    return (flow.net(x, 1000 * t, None) - (noise - image)).square().mean()


LOSSES = {"vae_mnist": _of_vae, "diffusion_mnist": _of_flow}


def main() -> None:
    given = options(experiment="vae_mnist", root="data", batch_size=64, epochs=2, rounds=5, batches=None)
    words = [
        f"experiment={given['experiment']}",
        "trainer=cpu",
        "cpu_threads=1",
        "trainer.limit_val_batches=0",
    ]
    words += [] if given["batches"] is None else [f"trainer.limit_train_batches={given['batches']}"]
    words += [f"data.root={given['root']}", f"data.batch_size={given['batch_size']}"]
    composed = compose("train", [*words, f"trainer.max_epochs={given['epochs']}"])
    torch.set_num_threads(1)
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # as in our runs, see core/lightning_internals.py
    log_to(None)
    ways = {
        "bare, fused Adam": functools.partial(bare, composed, fused=True),
        "lit-gen": functools.partial(ours, composed),
        "bare, plain Adam": functools.partial(bare, composed, fused=False),
    }
    take_turns(ways, given["rounds"])


if __name__ == "__main__":
    main()
