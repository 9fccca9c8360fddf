"""Images per second of `lit-gen train experiment=vae_mnist` against a bare PyTorch loop with the same nets.

The bare loop keeps the images as one uint8 tensor, draws a permutation per epoch, uses the same loss and
fused Adam, and logs nothing. Ours has its progress bar, MLflow and checkpoints. Runs alternate; medians are
compared. Plain Adam is shown as well: the loop that most people would write.

    python benchmarks/overhead.py data.root=DATA [batch_size=64] [epochs=2] [repeats=5]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from lit_gen.cli.config import compose, recompose
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


def configuration(words: list[str], folder: Path) -> Any:
    composed = compose("train", ["experiment=vae_mnist", "trainer=cpu", "cpu_threads=1", *words])
    return recompose(composed.source | {"output_dir": str(folder)})


def ours(words: list[str]) -> float:
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "runs" / "run")
        (folder.path / "checkpoints").mkdir(parents=True)
        composed = configuration([*words, "trainer.limit_val_batches=0"], folder.path)
        seed_everything(0, verbose=False)
        parts = assemble(composed, folder, None, {})
        watch = Watch()
        parts.trainer.callbacks.append(watch)
        fit_stages(parts.trainer, parts.module, parts.data)
        images = composed.config["trainer"]["max_epochs"] * len(parts.data.dataset("train", [0]))
        parts.record.finish("FINISHED")
        return images / watch.seconds


def bare(words: list[str], fused: bool) -> float:
    composed = configuration(words, Path("unused"))
    config = composed.config
    seed_everything(0, verbose=False)
    data = composed.build("data")
    data.prepare_data()
    data.setup()
    images = data.dataset("train", [0])[torch.arange(data.tasks[0].num_images)].image
    vae = composed.build("model")
    encoder, decoder = vae.encoder, vae.decoder
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=fused)
    batch_size, epochs = config["data"]["batch_size"], config["trainer"]["max_epochs"]
    start = time.perf_counter()
    for _ in range(epochs):
        for places in torch.randperm(len(images)).split(batch_size):
            image = images[places].float().mul_(2 / 255).sub_(1)
            loss = _loss(encoder, decoder, image)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return epochs * len(images) / (time.perf_counter() - start)


def _loss(encoder: torch.nn.Module, decoder: torch.nn.Module, image: Tensor) -> Tensor:
    mean, log_var = encoder(image).chunk(2, dim=1)
    code = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    return squared_error(decoder(code), image).mean() + gaussian_kl(mean, log_var).mean()


def main() -> None:
    settings = {"batch_size": "64", "epochs": "2", "repeats": "5"}
    words = []
    for word in sys.argv[1:]:
        key, _, value = word.partition("=")
        settings[key] = value
        if key not in ("batch_size", "epochs", "repeats"):
            words.append(word)
    words += [f"data.batch_size={settings['batch_size']}", f"trainer.max_epochs={settings['epochs']}"]
    torch.set_num_threads(1)
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # as in our runs, see core/lightning_internals.py
    log_to(None)
    rates: dict[str, list[float]] = {"bare, fused Adam": [], "bare, plain Adam": [], "lit-gen": []}
    for _ in range(int(settings["repeats"])):
        rates["bare, fused Adam"].append(bare(words, fused=True))
        rates["lit-gen"].append(ours(words))
        rates["bare, plain Adam"].append(bare(words, fused=False))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        share = medians[name] / medians["bare, fused Adam"]
        every = " ".join(f"{value:,.0f}" for value in values)
        print(f"{name:<18} {medians[name]:>8,.0f} images/s  {share:.2f}   ({every})")


if __name__ == "__main__":
    main()
