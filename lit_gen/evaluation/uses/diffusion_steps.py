"""What the steps of a diffusion model do: how much signal each has, up to where an image survives its noise,
and whether the late steps take noise from other images too.

Source: Deja et al. 2022, "On analyzing generative and denoising capabilities of diffusion-based deep
generative models", arXiv:2206.00070, sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_gen.core.images import to_float, to_uint8
from lit_gen.core.random import Use
from lit_gen.core.types import Batch, Diffuses, InputError, Positive
from lit_gen.diffusion.bound import bits_per_dimension, log_variance, step_term
from lit_gen.diffusion.outputs import noised
from lit_gen.diffusion.path import Path, Table
from lit_gen.diffusion.solvers import Place, posterior
from lit_gen.evaluation.context import Context, pixel_error
from lit_gen.evaluation.plots import below, lines, strips
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.metrics.features import FeatureExtractor


@dataclass(frozen=True)
class SignalToNoise:
    """Signal-to-noise ratio of every step of a chain, there and back, and the divergence between them.

    Forwards it is that of a noising step, (1 - beta_t) x_(t-1)^2 / beta_t; backwards that of the model's
    step, its squared mean over its variance; both per pixel, then the mean over pixels and images. The
    divergence is the bound's term of the step.

    Attributes:
        n: test images.
        points: steps of the chain that are looked at, evenly spread.
    """

    n: Positive = 50
    points: Positive = 50

    def __call__(self, context: Context) -> Findings:
        model, images = _diffuses(context), context.images("test")
        if not isinstance(model.path, Table):
            raise InputError(
                f"{context.name}: {type(model.path).__name__} is no chain of steps; what=snr takes models "
                "such as model=ddpm"
            )
        places, table = context.choose(len(images), self.n), []
        for t in _spread(model.path, self.points):
            if t < 2:
                continue

            def step(batch: Batch, t: float = t) -> tuple[Tensor, Tensor, Tensor]:
                return _one_step(model, batch, t)

            forward, backward, nats = context.ask(step, images, places, Use.NOISE, int(t))
            size = math.prod(model.spec.shape)
            kl = float(bits_per_dimension(nats, size).mean())
            ratios = {"forward_snr": float(forward.mean()), "backward_snr": float(backward.mean())}
            table.append({"t": int(t), **ratios, "kl": kl})
        panels = {
            "signal-to-noise ratio": {
                way: [(row["t"], row[f"{way}_snr"]) for row in table] for way in ("forward", "backward")
            },
            "divergence, bits per number": {"KL(q, p)": [(row["t"], row["kl"]) for row in table]},
        }
        return Findings(table, picture=lines("step t", panels, log_y=True))


@dataclass(frozen=True)
class Noising:
    """Test images noised up to a time and denoised again: up to where do they stay what they were?

    The transition is the first time at which the share of images in which the run's extractor finds the same
    class as before comes below the middle between 1 and chance, interpolated between the times looked at.

    Attributes:
        n: test images.
        points: times that are looked at, evenly spread over the path.
        columns: images shown.
    """

    n: Positive = 500
    points: Positive = 11
    columns: Positive = 12

    def __call__(self, context: Context, extractor: FeatureExtractor) -> Findings:
        model, images = _diffuses(context), context.images("test")
        extractor = extractor.to(context.model.device)
        places = context.choose(len(images), self.n)
        table, shown = [], [context.load(images, places[: self.columns]).image.cpu()]
        for t in _spread(model.path, self.points):
            found = _there_and_back(context, images, places, t, extractor)
            table.append({"t": t, "noise": _noise_share(model, t), **found.row()})
            if len(table) % max(1, self.points // 5) == 1 or self.points < 6:
                shown += [found.noisy[: self.columns], found.back[: self.columns]]
        chance = 1 / max(extractor.num_logits, 1)
        transition = crossing([(row["t"], row["agreement"]) for row in table], chance)
        for row in table:
            row["transition"] = transition
        panels = {
            "squared error per pixel": {"there and back": [(row["t"], row["mse"]) for row in table]},
            "share of the same class": {"there and back": [(row["t"], row["agreement"]) for row in table]},
        }
        picture = lines("time t", panels, mark=transition)
        return Findings(table, picture=below(picture, strips(shown)))


@dataclass(frozen=True)
class Transfer:
    """The late steps on images of another kind: noised up to a time and denoised, the run's own test images
    and other ones. Others are the user's (in=FOLDER), or the run's own in another look.

    Attributes:
        look: of the other images, where none are given.
        n: images of each at most.
        points: times that are looked at, evenly spread over the path up to `until`.
        until: part of the path.
        columns: images shown.
    """

    look: Literal["invert", "mirror", "turn"] = "invert"
    n: Positive = 500
    points: Positive = 11
    until: float = 0.5
    columns: Positive = 12

    def __call__(self, context: Context) -> Findings:
        change = {"invert": torch.neg, "mirror": _mirrored, "turn": _turned}[self.look]
        images = context.images("test")
        places = context.choose(len(images), self.n)
        (other,) = context.ask(lambda batch: (change(batch.image),), images, places)
        return self._compared(context, other, self.look)

    def given(self, context: Context, image: Tensor) -> Findings:
        """Others are the user's, uint8 [N, C, S, S] of the model's size."""
        return self._compared(context, to_float(image[: self.n]), "given")

    def _compared(self, context: Context, other: Tensor, name: str) -> Findings:
        model, images = _diffuses(context), context.images("test")
        places = context.choose(len(images), self.n)
        (own,) = context.ask(lambda batch: (batch.image,), images, places)
        kinds = {"own": own, name: other}
        table, shown = [], []
        for t in _spread(model.path, self.points, self.until):
            row: dict[str, float] = {"t": t, "noise": _noise_share(model, t)}
            for kind, image in kinds.items():
                noisy, back = _denoised(context, image, t)
                row[f"mse_{kind}"] = float(pixel_error(back, image).mean())
                row[f"mse_noisy_{kind}"] = float(pixel_error(noisy, image).mean())
                if len(table) == self.points // 2:
                    shown += [each[: self.columns] for each in (image, noisy, back)]
            table.append(row)
        panels = {
            "squared error per pixel": {
                f"{kind}, {version}": [(row["t"], row[f"mse_{key}{kind}"]) for row in table]
                for kind in kinds
                for version, key in (("denoised", ""), ("noisy", "noisy_"))
            }
        }
        return Findings(table, picture=below(lines("time t", panels), strips(shown)))


class _Back(NamedTuple):
    """Images there and back."""

    noisy: Tensor  # float32 [N, C, S, S]
    back: Tensor
    error: Tensor  # [N], squared, per pixel counted from 0 to 1
    absolute: Tensor  # [N]
    agrees: Tensor  # [N], 1 where the extractor finds the same class as in the image itself; NaN without one

    def row(self) -> dict[str, float]:
        return {
            "mse": float(self.error.mean()),
            "mae": float(self.absolute.mean()),
            "agreement": float(self.agrees.mean()),
        }


def crossing(points: Sequence[tuple[float, float]], chance: float) -> float:
    """Where a curve of (time, share) that begins at (0, 1) first comes below the middle between 1 and chance;
    NaN where it never does.
    """
    middle = (1 + chance) / 2
    for (t0, y0), (t1, y1) in pairwise([(0.0, 1.0), *points]):
        if y1 < middle <= y0:
            return t0 + (t1 - t0) * (y0 - middle) / (y0 - y1)
    return math.nan


def _diffuses(context: Context) -> Diffuses:
    return context.promised(Diffuses)


def _spread(path: Path, points: int, until: float = 1.0) -> list[float]:
    """Times evenly over the path without its beginning, each once."""
    part = torch.linspace(until / points, until, points, dtype=torch.float64)
    return path.at(part).clamp(min=1.0 if isinstance(path, Table) else 0).unique().tolist()


def _one_step(model: Diffuses, batch: Batch, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Ratios there and back of a chain's step, and its term of the bound in nats: [B] each."""
    path, beta = model.path, float(model.path.exact["beta"][int(t)])
    time = torch.full((batch.size,), t, device=batch.image.device)
    before = noised(path, time - 1, batch.image, torch.randn_like(batch.image))
    x = math.sqrt(1 - beta) * before + math.sqrt(beta) * torch.randn_like(before)
    said = model.denoiser(label=batch.label, task=batch.task)(x, t)
    step = posterior(
        *(Place(s, *(float(path.exact[n][int(s)]) for n in ("alpha", "sigma"))) for s in (t, t - 1))
    )
    mean = step.of_image * said.parts.image + step.of_x * x
    kind = "large" if said.variance is None else "learned"
    log_var = log_variance(path, time, said.variance, kind)
    nats = step_term(path, time, batch.image, x, said.parts.image, log_var)
    forward = (1 - beta) * before.square() / beta
    backward = mean.square() * (-log_var).exp()
    return forward.flatten(1).mean(1), backward.flatten(1).mean(1), nats


def _there_and_back(
    context: Context, images: Dataset[Batch], places: Tensor, t: float, extractor: FeatureExtractor
) -> _Back:
    def question(batch: Batch) -> tuple[Tensor, ...]:
        noisy, back = _noised_and_back(context, batch.image, t, batch.label, batch.task)
        before, after = (extractor(to_uint8(each))[1] for each in (batch.image, back))
        agrees = torch.full((batch.size,), math.nan)
        if before is not None:
            agrees = (before.argmax(1) == after.argmax(1)).float()
        absolute = (back - batch.image).abs().flatten(1).mean(1)
        return noisy, back, pixel_error(back, batch.image), absolute, agrees

    return _Back(*context.ask(question, images, places, Use.NOISE, round(1000 * t)))


def _denoised(context: Context, image: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Images of no known label and task, noised and back."""
    device = context.model.device

    def answer(block: Tensor) -> tuple[Tensor, Tensor]:
        unknown = torch.full((len(block),), -1, device=device)
        found = _noised_and_back(context, image[block].to(device), t, unknown, unknown)
        return found[0].cpu(), found[1].cpu()

    answers = context.over_blocks(len(image), answer, Use.NOISE, round(1000 * t))
    noisy, back = (torch.cat(parts) for parts in zip(*answers, strict=True))
    return noisy, back


def _noised_and_back(
    context: Context, image: Tensor, t: float, label: Tensor, task: Tensor
) -> tuple[Tensor, Tensor]:
    model = _diffuses(context)
    time = torch.full((len(image),), t, device=image.device)
    x = noised(model.path, time, image, torch.randn_like(image))
    back = model.denoised(x, t, label=label, task=task)
    return x.clamp(-1, 1), back.clamp(-1, 1)


def _noise_share(model: Diffuses, t: float) -> float:
    """sigma^2 / (alpha^2 + sigma^2)."""
    alpha, sigma = (float(level) ** 2 for level in model.path.levels(torch.tensor(t, dtype=torch.float64)))
    return sigma / (alpha + sigma)


def _mirrored(image: Tensor) -> Tensor:
    return image.flip(-1)


def _turned(image: Tensor) -> Tensor:
    return image.transpose(-1, -2).flip(-1)
