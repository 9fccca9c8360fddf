"""What codes know of classes that nobody told them: clusters of codes, held against the classes.

Measures: Strehl & Ghosh 2002 (mutual information, normalised by the mean of both entropies), Hubert & Arabie
1985 (the Rand index, adjusted for chance).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lit_gen.core.types import InputError, Positive, Split
from lit_gen.evaluation.context import Codes, Context
from lit_gen.evaluation.plots import strips
from lit_gen.evaluation.tables import lines_of
from lit_gen.evaluation.uses.findings import Findings
from lit_gen.evaluation.uses.probe import scaled


@dataclass(frozen=True)
class Clusters:
    """Clusters of training codes by k-means and by a mixture of Gaussians, and beside them of pixels.

    All numbers are of test images, which go to the clusters of training images. Where they have classes,
    `nmi` is the normalised mutual information (0 to 1), `ari` the adjusted Rand index (0 by chance, 1 at
    best) and `accuracy` the share in the class of its cluster, when clusters and classes are paired as they
    match best. A row of the picture is a cluster of codes, by k-means on the left and by the mixture on the
    right; the largest come first.

    Attributes:
        number: of clusters; None: of 1 to `most`, that which gives the mixture of codes the best Bayesian
            information criterion.
        n: training images at most, and test images.
        columns: of the picture, on each side.
    """

    number: Positive | None = None
    most: Positive = 20
    n: Positive = 2000
    columns: Positive = 10

    def __call__(self, context: Context) -> Findings:
        from sklearn.cluster import KMeans
        from sklearn.mixture import GaussianMixture

        (train, fitted), (test, image) = (self._seen(context, split) for split in ("train", "test"))
        if (self.number or 0) > len(train.code):
            raise InputError(
                f"number={self.number}: more clusters than codes; {context.name} has {len(train.code)} "
                f"training images here (n={self.n}). Give a smaller number, or none"
            )
        near, far = scaled(train.code, train.code), scaled(test.code, train.code)
        sizes = [self.number] if self.number else range(1, min(self.most, len(near)) + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of mixtures that have not converged, and of equal points
            mixtures = [GaussianMixture(size, random_state=context.seed).fit(near) for size in sizes]
            mixture = min(mixtures, key=lambda each: each.bic(near))
            number = mixture.n_components
            means = KMeans(number, n_init=10, random_state=context.seed)
            found = {
                "k-means of codes": means.fit(near).predict(far),
                "mixture of codes": mixture.predict(far),
                "k-means of pixels": means.fit(fitted.flatten(1)).predict(image.flatten(1)),
            }
        table = [
            {"what": name, "clusters": number, "test_images": len(far), **agreement(cluster, test)}
            for name, cluster in found.items()
        ]
        rows = lines_of(**{"index": test.index, "class": test.classes()} | found)
        sides = [_shown(cluster, image, number, self.columns) for cluster in list(found.values())[:2]]
        gap = torch.ones_like(image[:1])
        pairs = zip(*sides, strict=True)
        return Findings(table, rows, strips([torch.cat([left, gap, right]) for left, right in pairs]))

    def _seen(self, context: Context, split: Split) -> tuple[Codes, Tensor]:
        """Codes and images [N, C, S, S]."""
        images = context.images(split)
        places = context.choose(len(images), self.n)
        codes = context.codes(split, places=places)
        if len(codes.code) < 2:
            raise InputError(f"{context.name}: clusters need two {split} images at least")
        if not codes.code.isfinite().all():
            raise InputError(f"{context.name}: some codes are no numbers; has its training diverged?")
        (image,) = context.ask(lambda batch: (batch.image,), images, places)
        return codes, image


def agreement(cluster: np.ndarray, codes: Codes) -> dict[str, float]:
    """Of clusters [N] with the classes; nothing where there are none."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    if codes.label.ndim > 1 or not (known := codes.label >= 0).any():
        return {}
    label, cluster = codes.label[known].numpy(), cluster[known.numpy()]
    counts = contingency_matrix(label, cluster)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    nmi, ari = normalized_mutual_info_score(label, cluster), adjusted_rand_score(label, cluster)
    return {"nmi": float(nmi), "ari": float(ari), "accuracy": float(matched / len(label))}


def _shown(cluster: np.ndarray, image: Tensor, number: int, columns: int) -> Sequence[Tensor]:
    """The first images of each cluster and white ones after them, [columns, C, S, S]; the largest first."""
    order = np.bincount(cluster, minlength=number).argsort(kind="stable")[::-1]
    some = [image[torch.from_numpy(cluster == each)][:columns] for each in order]
    white = torch.ones_like(image[:1])
    return [torch.cat([part, white.expand(columns - len(part), -1, -1, -1)]) for part in some]
