"""The local half of Multiband VAE: a VAE with binary latents, a translator and task codes; also on its own.

Source: Deja et al. 2022, "Multiband VAE: Latent Space Alignment for Knowledge Consolidation in Continual
Learning", arXiv:2106.12196, and the authors' code.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from lit_gen.core.module import LitGenerator, OptimizerFactory, ScheduleFactor
from lit_gen.core.processes import summed
from lit_gen.core.types import Batch, ImageSpec, NonNegative, Phase, Positive, Task, Terms
from lit_gen.families.base import ADAM, Reconstruction
from lit_gen.losses.divergence import gaussian_kl
from lit_gen.losses.reconstruction import squared_error
from lit_gen.nets.binary import BinaryEncoder, gaussian_code, gumbel_temperature, relaxed_bits, thresholded
from lit_gen.nets.multiband import DenseFeatures, DenseImages
from lit_gen.nets.translator import Band, Translator


class LocalVAE(nn.Module):
    """Encoder and band with the loss of a VAE; only the continuous part of the code has a KL term.

    Args:
        reconstruction: (image, target) -> one value per image.
        reconstruction_weight: of the reconstruction term beside a KL of weight 1.
    """

    def __init__(
        self, encoder: BinaryEncoder, band: Band, reconstruction: Reconstruction, reconstruction_weight: float
    ) -> None:
        super().__init__()
        self.encoder, self.band = encoder, band
        self.reconstruction, self.reconstruction_weight = reconstruction, reconstruction_weight

    def loss(self, batch: Batch, progress: float, num_epochs: int = 1) -> Terms:
        """Terms of one batch.

        Args:
            progress: over the whole course of `num_epochs`, on which the bits' temperature depends.
        """
        posterior = self.encoder(batch.image)
        bits = relaxed_bits(posterior.logits, gumbel_temperature(progress, num_epochs))
        image = self.band(torch.cat([gaussian_code(posterior), bits], 1), batch.task)
        error = self.reconstruction(image, batch.image).mean()
        kl = gaussian_kl(posterior.mean, posterior.log_var).mean()
        return {"loss": self.reconstruction_weight * error + kl, "reconstruction": error, "kl": kl}

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """The most probable code, [B, Z + bits]."""
        posterior = self.encoder(image)
        return torch.cat([posterior.mean, thresholded(-posterior.logits, posterior.logits.new_zeros(()))], 1)

    def bit_chances(self, image: Tensor) -> Tensor:
        """The probability of +1 that `loss` draws the bits with, sigmoid(2 a): [B, bits]."""
        return torch.sigmoid(2 * self.encoder(image).logits)


class CodePrior(nn.Module):
    """Codes to draw images from: Gaussian numbers, and bits with one probability per bit and task.

    Attributes:
        code_means: float32 [num_tasks, num_bits], the share of +1 over a task's training images; 0.5 before
            they were counted.
        num_counted: float32 [num_tasks, 1], images behind it.
    """

    def __init__(self, num_tasks: Positive, latent_size: Positive, num_bits: NonNegative) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.register_buffer("code_means", torch.full((num_tasks, num_bits), 0.5))
        self.register_buffer("num_counted", torch.zeros(num_tasks, 1))

    def memory_bytes(self) -> dict[str, int]:
        return {"codes": sum(kept.nbytes for kept in self.buffers())}

    def reset(self, first: int, end: int) -> None:
        """Forgets the shares of these tasks."""
        self.code_means[first:end] = 0.5
        self.num_counted[first:end] = 0

    def count(self, chance: Tensor, task: Tensor) -> None:
        """Adds the images of all processes.

        Args:
            chance: [B, num_bits], probability of +1.
            task: int64 [B].
        """
        rows = torch.cat([chance, torch.ones_like(chance[:, :1])], 1)
        sums = rows.new_zeros(len(self.code_means), rows.shape[1]).index_add_(0, task, rows)
        number = summed(sums)[:, -1:]
        total = self.num_counted + number
        self.code_means += (sums[:, :-1] - number * self.code_means) / total.clamp(min=1)
        self.num_counted.copy_(total)

    def draw(self, task: Tensor) -> Tensor:
        """One code for every entry of task: int64 [B] -> [B, Z + bits]."""
        chance = self.code_means[task]
        noise = torch.randn(len(task), self.latent_size, device=chance.device)
        return torch.cat([noise, thresholded(torch.rand_like(chance), chance)], 1)

    def draw_shared(self, count: int, num_tasks: int) -> tuple[Tensor, Tensor]:
        """Codes of the first `num_tasks` tasks that share their noise.

        One block of noise serves all tasks: the same Gaussian numbers and the same uniform numbers, which
        each task compares with its own shares. The tasks get equally many codes; what does not divide goes to
        tasks at random.

        Returns:
            Codes [count, Z + bits] and tasks, int64 [count].
        """
        place = torch.arange(count, device=self.code_means.device)
        row = place // num_tasks
        shift = torch.randint(num_tasks, (1,), device=place.device)
        task = (place + shift) % num_tasks
        chance = self.code_means[task]
        block = -(-count // num_tasks)
        noise = torch.randn(block, self.latent_size, device=place.device)
        uniform = torch.rand(block, chance.shape[1], device=place.device)
        return torch.cat([noise[row], thresholded(uniform[row], chance)], 1), task


class MultibandLocal(LitGenerator):
    """The local VAE of Multiband VAE as a model: for generative replay, separate models and joint training.

        >>> model = MultibandLocal(ImageSpec(1, 8, 10), num_tasks=5)
        >>> list(model.sample(3, task=torch.tensor([0, 4, 2])).shape)
        [3, 1, 8, 8]

    Args:
        num_tasks: length of the stream.
        encoder: image -> BinaryPosterior; None is the authors' dense one, with 8 numbers and 4 bits.
        band: code and task -> image; None is their dense one for the encoder's codes.
        epochs: of one task.
        reconstruction: (image, target) -> one value per image.
        reconstruction_weight: of the reconstruction term beside a KL of weight 1.
    """

    conditions = frozenset({"task"})

    def __init__(
        self,
        spec: ImageSpec,
        num_tasks: Positive,
        encoder: BinaryEncoder | None = None,
        band: Band | None = None,
        epochs: Positive = 70,
        reconstruction: Reconstruction = squared_error,
        reconstruction_weight: Annotated[float, Gt(0)] = 1.0,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(spec, optimizer, schedule)
        image = (spec.channels, spec.size)
        if encoder is None:
            encoder = BinaryEncoder(DenseFeatures(*image), latent_size=8, num_bits=4)
        codes = (encoder.latent_size, encoder.num_bits)
        if band is None:
            width = 32 * encoder.latent_size
            band = Band(Translator(*codes, num_tasks, width), DenseImages(*image, width))
        self.local = LocalVAE(encoder, band, reconstruction, reconstruction_weight)
        self.prior = CodePrior(num_tasks, *codes)
        self.epochs = epochs

    def phases(self, task: Task) -> tuple[Phase, ...]:
        loss = partial(self.local.loss, num_epochs=self.epochs)
        return (
            Phase.single("train", loss, (self.local,), self.epochs),
            Phase.single("bits", self.count_bits, (), begin=self._recount),
        )

    def evaluate(self, batch: Batch) -> Terms:
        return self.local.loss(batch, 1.0)

    def generate(self, n: int, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.decode(self.prior.draw(task.to(self.device)), task=task)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        return self.local.encode(batch.image)

    @torch.no_grad()
    def decode(self, codes: Tensor, *, label: Tensor | None = None, task: Tensor | None = None) -> Tensor:
        return self.local.band(codes, task.to(self.device))

    @torch.no_grad()
    def reconstruct(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch), task=batch.task)

    @torch.no_grad()
    def translated(self, task: Tensor) -> Tensor:
        """Draws of these tasks in the translator's space, [B, D]."""
        task = task.to(self.device)
        return self.local.band.translator(self.prior.draw(task), task)

    @torch.no_grad()
    def count_bits(self, batch: Batch, progress: float) -> Terms:
        """A pass without training: the prior of the bits.

        The authors average the drawn bits of the last epoch, while the encoder still learns; the mean of the
        probabilities afterwards has the same expectation, without noise, and is the same after a resume.
        """
        self.prior.count(self.local.bit_chances(batch.image), batch.task)
        return {}

    def _recount(self, task: Task) -> None:
        self.prior.reset(0, task.index + 1)
