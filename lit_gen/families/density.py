"""A density of codes that is fitted after training, for autoencoders whose codes follow none that is known.

Source: Ghosh et al. 2020, "From variational to deterministic autoencoders", arXiv:1903.12436, section 4
("ex-post density estimation", with a Gaussian or a mixture of ten).

The phase that fits it trains nothing: it is one pass over the task's training images after the others, redone
whole on resume. With generative replay around the model the pass sees the replayed images too.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from lit_gen.core.processes import gathered
from lit_gen.core.types import Batch, Phase, Positive, Task, Terms

log = logging.getLogger(__name__)

ExPost = Literal["none", "gaussian", "mixture"]

_RIDGE = 1e-6  # of the mean variance, on the diagonal of covariances: a unit that is always off has none
_MAX_ITERATIONS = 300  # of EM
_MOST_CODES = 10_000  # that EM looks at: in 256 dimensions an iteration takes a second on one thread


class LatentDensity(nn.Module):
    """N(0, I) until it is fitted, then a mixture of Gaussians with full covariances.

    Args:
        kind: "none" stays N(0, I), "gaussian" is a mixture of one.
        num_components: of "mixture"; fewer where there are fewer codes than that.

    Attributes:
        weights: float32 [K], of the components, with sum 1.
        means: float32 [K, Z].
        factors: float32 [K, Z, Z], lower triangular; a component's covariance is factor @ factor.T.
        num_fitted: int64, the number of codes behind it; 0 before the fit.

    A mixture is fitted to at most 10,000 codes, spread evenly over the images; a Gaussian to all.
    """

    def __init__(self, latent_size: Positive, kind: ExPost = "none", num_components: Positive = 10) -> None:
        super().__init__()
        self.latent_size, self.kind = latent_size, kind
        count = num_components if kind == "mixture" else 1
        if kind != "none":
            self.register_buffer("weights", torch.full((count,), 1 / count))
            self.register_buffer("means", torch.zeros(count, latent_size))
            self.register_buffer("factors", torch.eye(latent_size).repeat(count, 1, 1))
        self.register_buffer("num_fitted", torch.zeros((), dtype=torch.long))
        self._codes: list[Tensor] = []  # those of a pass that is not complete
        self._index: list[Tensor] = []

    def phases(self, codes_of: Callable[[Batch], Tensor]) -> tuple[Phase, ...]:
        """The phase that fits this density to a task's codes [B, Z]; none for a standard normal."""
        if self.kind == "none":
            return ()

        def collect(batch: Batch, progress: float) -> Terms:
            self.collect(codes_of(batch), batch.index)
            return {}

        return (Phase.single("density", collect, (), begin=self.forget, end=lambda task: self.fit()),)

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """float32 [n, Z], on the device of the buffers; deviations from the mean are times `temperature`."""
        noise = temperature * torch.randn(n, self.latent_size, device=self.num_fitted.device)
        if self.kind == "none":
            return noise
        component = torch.multinomial(self.weights, n, replacement=True)
        spread = noise @ self.factors.mT  # [K, n, Z]: gathering a factor per draw would take n * Z * Z
        return self.means[component] + spread[component, torch.arange(n, device=noise.device)]

    @torch.no_grad()
    def collect(self, codes: Tensor, index: Tensor) -> None:
        """Keeps the codes of all processes' batches; collective.

        Args:
            codes: [B, Z].
            index: int64 [B], the images' places in the stream.
        """
        self._codes.append(gathered(codes.float()).cpu())
        self._index.append(gathered(index).cpu())

    @torch.no_grad()
    def fit(self) -> None:
        """Fits to the collected codes and forgets them.

        Codes are sorted by the place of their images, so that any number of processes gives the same fit. The
        start of EM is drawn from the global generator.
        """
        if not self._codes:
            log.warning("no codes were collected; samples keep coming from N(0, I)")
            return
        codes = torch.cat(self._codes).double()[torch.cat(self._index).argsort(stable=True)]
        self.forget()
        if self.kind == "mixture" and len(codes) > _MOST_CODES:
            codes = codes[torch.arange(_MOST_CODES) * len(codes) // _MOST_CODES]
        if not codes.isfinite().all():
            log.warning("some codes are infinite or NaN; samples keep coming from N(0, I)")
            return
        fitted = _gaussian(codes) if self.kind == "gaussian" else _mixture(codes, len(self.weights))
        # A component that is not used has weight 0 and stays N(0, I), so that densities are finite.
        self.weights.zero_()
        self.means.zero_()
        self.factors.copy_(torch.eye(self.latent_size))
        for buffer, value in zip((self.weights, self.means, self.factors), fitted, strict=True):
            buffer[: len(value)] = value.to(buffer)
        self.num_fitted.fill_(len(codes))

    def forget(self, task: Task | None = None) -> None:
        """Drops the collected codes."""
        self._codes, self._index = [], []


Components = tuple[Tensor, Tensor, Tensor]  # weights [K], means [K, Z], factors [K, Z, Z], float64


def _gaussian(codes: Tensor) -> Components:
    mean = codes.mean(0)
    centred = codes - mean
    covariance = centred.T @ centred / len(codes)
    covariance.diagonal().add_(_ridge(codes))
    return codes.new_ones(1), mean[None], torch.linalg.cholesky(covariance)[None]


def _mixture(codes: Tensor, num_components: int) -> Components:
    # Imported here, since it takes a second and half of the command line never needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    count = min(num_components, len(codes))
    if count < num_components:
        log.warning("num_components=%d, but there are only %d codes to fit to", num_components, count)
    mixture = GaussianMixture(
        n_components=count,
        covariance_type="full",
        reg_covar=_ridge(codes),
        max_iter=_MAX_ITERATIONS,
        random_state=int(torch.randint(2**31 - 1, ())),
    )
    # Sums over several threads have no fixed order, and a resume would give other bits.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(codes.numpy())
    if not mixture.converged_:
        log.warning("the mixture of %d Gaussians did not settle in %d iterations", count, _MAX_ITERATIONS)
    found = (mixture.weights_, mixture.means_, mixture.covariances_)
    weights, means, covariances = map(torch.from_numpy, found)
    return weights, means, torch.linalg.cholesky(covariances)


def _ridge(codes: Tensor) -> float:
    """In proportion to the codes' variance, since a contractive encoder's codes may be very small."""
    return _RIDGE * float(codes.var(0, correction=0).mean()) + 1e-12
