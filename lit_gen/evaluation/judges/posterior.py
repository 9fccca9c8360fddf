"""What the dimensions of a code say about an image, and which of them say nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from lit_gen.core.files import write_text
from lit_gen.core.random import Use, forked_rng
from lit_gen.core.types import HasPosterior, NonNegative, Positive, Posterior, Split
from lit_gen.evaluation.board import Row
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.base import at_least
from lit_gen.evaluation.plots import sorted_bars, write_picture
from lit_gen.evaluation.tables import as_csv, lines_of

_AT_ONCE = 500  # images whose codes are compared with all posteriors in one go


class Report(NamedTuple):
    """How much each of Z dimensions, and all of them together, know about N images. In nats."""

    kl: Tensor  # float64 [Z]: KL(q(z_d | x) || p(z_d)), mean over images
    variance: Tensor  # float64 [Z]: of the posterior's mean over images, Cov_x(E[z_d | x])
    is_active: Tensor  # bool [Z]
    mutual_information: float  # of an image and its code; at most log N
    marginal_kl: float  # KL(q(z) || p(z)) of the aggregate posterior


class PosteriorCollapse:
    """Judges a model that promises `HasPosterior`: `active_units`, `mutual_information` and `marginal_kl`.

    A run also gets `collapse/task<k>.png`, the KL of every dimension, and the same as numbers in
    `collapse/task<k>.csv`.

    Args:
        num_images: the most images that are looked at, of all tasks seen so far. The mutual information is an
            estimate over these alone and does not exceed the logarithm of their number.
        batch_size: images that are encoded at once.
        threshold: a dimension is active if its posterior mean varies by more than this over images (Burda et
            al. 2016, arXiv:1509.00519, section 5.2).
        every_n_epochs: in a fit; 0 judges in tests only.

    Attributes:
        report: what the newest rows were made from; None before the first.
    """

    better = {"active_units": "higher", "mutual_information": "higher", "marginal_kl": "lower"}

    def __init__(
        self,
        num_images: Positive = 5000,
        batch_size: Positive = 250,
        threshold: Annotated[float, Ge(0)] = 0.01,
        every_n_epochs: NonNegative = 0,
        seed: NonNegative = 0,
    ) -> None:
        at_least(2, num_images=num_images)
        at_least(1, batch_size=batch_size)
        at_least(0, threshold=threshold)
        self.num_images, self.batch_size, self.threshold = num_images, batch_size, threshold
        self.every_n_epochs, self.seed = every_n_epochs, seed
        self.report: Report | None = None

    def check(self, context: Context) -> None:
        context.promised(HasPosterior)

    def rows(self, context: Context, split: Split) -> list[Row]:
        context = context.with_blocks(self.batch_size, self.seed)
        able, images = context.promised(HasPosterior), context.images(split)
        chosen = context.choose(len(images), self.num_images, Use.POSTERIOR_CHOICE).sort().values
        mean, log_var = context.ask(lambda batch: tuple(able.posterior(batch)), images, chosen)
        with forked_rng(self.seed, Use.POSTERIOR, device=torch.device("cpu")):
            report = self.report = describe(Posterior(mean.double(), log_var.double()), self.threshold)
        values = {
            # A variance that is NaN is above no threshold.
            "active_units": math.nan if report.variance.isnan().any() else float(report.is_active.sum()),
            "mutual_information": report.mutual_information,
            "marginal_kl": report.marginal_kl,
        }
        return [Row(None, m, v, "", "", split, len(chosen), 0, self.seed) for m, v in values.items()]

    def keep(self, folder: Path, after_task: int) -> dict[str, Tensor]:
        report, path = self.report, folder / "collapse" / f"task{after_task}"
        lines = lines_of(
            dimension=range(len(report.kl)),
            kl=report.kl,
            variance_of_mean=report.variance,
            is_active=report.is_active.long(),
        )
        write_text(path.with_suffix(".csv"), as_csv(lines))
        title = (
            f"KL {report.kl.sum():.2f} = mutual information {report.mutual_information:.2f} + "
            f"KL(q(z) || p(z)) {report.marginal_kl:.2f} nats"
        )
        names = ("dimension", "KL(q(z | x) || p(z)) in nats")
        picture = sorted_bars(report.kl, report.is_active, ("active", "not active"), names, title)
        write_picture(path.with_suffix(".png"), picture)
        return {"collapse": picture}


def describe(posterior: Posterior, threshold: Annotated[float, Ge(0)] = 0.01) -> Report:
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
