"""What the dimensions of a code say about an image, and which of them say nothing."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_float
from lit_gen.core.random import forked_rng, mixed_seed
from lit_gen.core.types import Batch, HasPosterior, InputError, Posterior
from lit_gen.evaluation.blocks import abilities_of, blocks, choose, gathered, on_device, undisturbed
from lit_gen.evaluation.scores import Score
from lit_gen.tracking.pictures import batches_seen, log_picture

_CHOICE, _DRAWS = 221, 222  # uses of the seed
_AT_ONCE = 500  # images whose codes are compared with all posteriors in one go
_MOST_LABELS = 64  # dimensions; beyond these the bars have no names


class Report(NamedTuple):
    """How much each of Z dimensions, and all of them together, know about N images. In nats."""

    kl: Tensor  # float64 [Z]: KL(q(z_d | x) || p(z_d)), mean over images
    variance: Tensor  # float64 [Z]: of the posterior's mean over images, Cov_x(E[z_d | x])
    is_active: Tensor  # bool [Z]
    mutual_information: float  # of an image and its code; at most log N
    marginal_kl: float  # KL(q(z) || p(z)) of the aggregate posterior


class CollapseReport(Callback):
    """Reports posterior collapse of a model that promises `HasPosterior`, whenever it is tested.

    Logs `test/active_units`, `test/mutual_information` and `test/marginal_kl`. A run with a logger also gets
    `collapse/task<k>.png`, the KL of every dimension, and the same as numbers in `collapse/task<k>.csv`.

    Args:
        folder: the run folder.
        num_images: the most test images that are looked at, of all tasks seen so far. The mutual information
            is an estimate over these alone and does not exceed the logarithm of their number.
        batch_size: images that are encoded at once.
        threshold: a dimension is active if its posterior mean varies by more than this over images (Burda et
            al. 2016, arXiv:1509.00519, section 5.2).

    Attributes:
        scores: those of the latest pass, the same on every process.
        report: likewise; None before the first.
    """

    def __init__(
        self,
        folder: str | Path,
        num_images: int = 5000,
        batch_size: int = 250,
        threshold: float = 0.01,
        seed: int = 0,
    ) -> None:
        for key, value, least in (("num_images", num_images, 2), ("batch_size", batch_size, 1)):
            if value < least:
                raise InputError(f"callbacks.collapse.{key}={value}: must be at least {least}")
        if threshold < 0:
            raise InputError(f"callbacks.collapse.threshold={threshold}: must be 0 or more")
        self.folder = Path(folder) / "collapse"
        self.num_images, self.batch_size = num_images, batch_size
        self.threshold, self.seed = threshold, seed
        self.scores: list[Score] = []
        self.report: Report | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(abilities_of(pl_module), HasPosterior):
            raise InputError(
                f"callbacks.collapse: {type(pl_module).__name__} does not promise HasPosterior. Choose "
                "another model, or leave the callback out"
            )
        if trainer.datamodule is None:
            raise InputError("CollapseReport needs test images: give the Trainer a datamodule, not loaders")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        posterior = self._posterior(trainer, pl_module)
        with forked_rng(self.seed, _DRAWS, device=torch.device("cpu")):
            self.report = describe(posterior, self.threshold)
        values = {
            "active_units": float(self.report.is_active.sum()),
            "mutual_information": self.report.mutual_information,
            "marginal_kl": self.report.marginal_kl,
        }
        count = len(posterior.mean)
        self.scores = [Score(None, m, v, "", "", "test", count, 0, self.seed) for m, v in values.items()]
        for name, value in values.items():
            # Every process has the same value, and so is the largest of them.
            pl_module.log(f"test/{name}", value, sync_dist=True, reduce_fx="max")
        # `lit-gen evaluate` scores without a logger and writes nothing into the folder of the run.
        if trainer.is_global_zero and trainer.loggers:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"task{trainer.datamodule.current_task}"
            _write(self.report, path.with_suffix(".csv"))
            picture = _draw(self.report, path.with_suffix(".png"))
            log_picture(trainer, "collapse", picture, batches_seen(trainer))

    def _posterior(self, trainer: Trainer, module: LightningModule) -> Posterior:
        """Of the chosen images, float64 on the CPU, the same on every process."""
        images = trainer.datamodule.dataset("test", range(trainer.datamodule.current_task + 1))
        # A dry run shows that everything runs, on one block.
        most = self.batch_size if trainer.fast_dev_run else self.num_images
        chosen = choose(len(images), most, mixed_seed(self.seed, _CHOICE))
        # A process without blocks needs the width all the same.
        found = [_encoded(module, images, chosen[:1])[:0]]
        places = [torch.empty(0, dtype=torch.long)]
        for _, block in blocks(len(chosen), self.batch_size, trainer):
            found.append(_encoded(module, images, chosen[block]))
            places.append(block)
        every = gathered(torch.cat(found), torch.cat(places), len(chosen), trainer).double()
        return Posterior(*every.unbind(1))


def describe(posterior: Posterior, threshold: float = 0.01) -> Report:
    """What the posteriors of N images, float64, say; one code of each is drawn from the global generator.

    The mutual information is that of an image's number, uniform from 1 to N, and its code, where q(z) is the
    mean of all N posteriors. Source: Hoffman & Johnson 2016, "ELBO surgery".
    """
    mean, log_var = posterior
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean(0)
    variance = mean.var(0, correction=0)
    codes = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
    information = (_log_density(codes, mean, log_var) - _log_aggregate(codes, mean, log_var)).mean().item()
    return Report(kl, variance, variance > threshold, information, kl.sum().item() - information)


def _encoded(module: LightningModule, images: Dataset[Batch], places: Tensor) -> Tensor:
    """Means and log-variances of the images at these places: [n, 2, Z]."""
    batch = on_device(images.__getitems__(places.tolist()), module.device)
    with undisturbed(module):
        return torch.stack(abilities_of(module).posterior(batch._replace(image=to_float(batch.image))), 1)


def _log_density(codes: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log q(z_n | x_n), [N]."""
    distance = (codes - mean).square() * (-log_var).exp()
    return -0.5 * (distance + log_var + math.log(2 * math.pi)).sum(1)


def _log_aggregate(codes: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log of the mean over m of q(z_n | x_m), [N]."""
    precision = (-log_var).exp()
    # The squared distance, multiplied out, is two products of matrices.
    constant = (mean.square() * precision + log_var + math.log(2 * math.pi)).sum(1)
    found = []
    for some in codes.split(_AT_ONCE):
        distance = some.square() @ precision.T - 2 * some @ (mean * precision).T + constant  # [n, N]
        found.append((-0.5 * distance).logsumexp(1))
    return torch.cat(found) - math.log(len(mean))


def _write(report: Report, path: Path) -> None:
    """One row per dimension, exact to the last bit, in one move."""
    fresh = path.with_suffix(".csv.tmp")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("dimension", "kl", "variance_of_mean", "is_active"))
        columns = (report.kl.tolist(), report.variance.tolist(), report.is_active.tolist())
        for number, (kl, variance, is_active) in enumerate(zip(*columns, strict=True)):
            writer.writerow((number, repr(kl), repr(variance), int(is_active)))
    os.replace(fresh, path)


def _draw(report: Report, path: Path) -> Tensor:
    """Bars of KL, the largest first, written to `path` in one move; returned as uint8 [H, W, 3]."""
    # Not pyplot: it picks a window system when it is imported.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = report.kl.argsort(descending=True)
    figure = Figure(figsize=(6.5, 3.5), layout="constrained", dpi=110)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    is_active = report.is_active[order].numpy()
    places, kl = np.arange(len(order)), report.kl[order].numpy()
    for chosen, color, name in ((is_active, "tab:blue", "active"), (~is_active, "tab:grey", "not active")):
        if chosen.any():
            axes.bar(places[chosen], kl[chosen], color=color, label=f"{name} ({chosen.sum()})")
    if len(order) <= _MOST_LABELS:
        axes.set_xticks(places, [str(number) for number in order.tolist()], fontsize=6, rotation=90)
    axes.set_xlabel("dimension")
    axes.set_ylabel("KL(q(z | x) || p(z)) in nats")
    axes.set_title(
        f"KL {kl.sum():.2f} = mutual information {report.mutual_information:.2f} + "
        f"KL(q(z) || p(z)) {report.marginal_kl:.2f} nats",
        fontsize=9,
    )
    axes.legend(fontsize=8)
    canvas.draw()
    fresh = path.with_name(path.stem + ".tmp.png")
    figure.savefig(fresh)
    os.replace(fresh, path)
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())
