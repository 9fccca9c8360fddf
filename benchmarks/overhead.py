"""Images per second of `lit-gen train experiment=vae_mnist` against a bare PyTorch loop with the same nets.

The bare loop keeps the images as one uint8 tensor, draws a permutation per epoch, uses the same loss and
fused Adam, and logs nothing. Ours has its progress bar, MLflow and checkpoints. Plain Adam is shown as well:
the loop that most people would write.

    python benchmarks/overhead.py [root=data] [batch_size=64] [epochs=2] [rounds=5]
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

from lit_gen.cli.config import Composed, compose, recompose
from lit_gen.cli.lean import old_objects_left_alone
from lit_gen.cli.log import log_to
from lit_gen.cli.run_folder import RunFolder
from lit_gen.cli.train import assemble
from lit_gen.core.stages import fit_stages
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
        return parts.trainer.max_epochs * parts.data.tasks[0].num_images / watch.seconds


def bare(composed: Composed, fused: bool) -> float:
    seed_everything(0, verbose=False)
    data, vae = composed.build("data"), composed.build("model")
    data.prepare_data()
    data.setup()
    images = data.dataset("train", [0])[torch.arange(data.tasks[0].num_images)].image
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=fused)
    epochs = composed.config["trainer"]["max_epochs"]
    start = time.perf_counter()
    for _ in range(epochs):
        for places in torch.randperm(len(images)).split(data.batch_size):
            loss = _loss(vae.encoder, vae.decoder, images[places].float().mul_(2 / 255).sub_(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return epochs * len(images) / (time.perf_counter() - start)


def _loss(encoder: torch.nn.Module, decoder: torch.nn.Module, image: Tensor) -> Tensor:
    mean, log_var = encoder(image).chunk(2, dim=1)
    code = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    return squared_error(decoder(code), image).mean() + gaussian_kl(mean, log_var).mean()


def main() -> None:
    given = options(root="data", batch_size=64, epochs=2, rounds=5)
    words = ["experiment=vae_mnist", "trainer=cpu", "cpu_threads=1", "trainer.limit_val_batches=0"]
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
