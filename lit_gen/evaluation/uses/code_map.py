"""Where the classes lie in the space of codes, seen in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from lit_gen.core.types import InputError
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.plots import scatter
from lit_gen.evaluation.tables import lines_of
from lit_gen.evaluation.uses.findings import Findings


@dataclass(frozen=True)
class CodeMap:
    """Codes of test images in two dimensions, coloured by class; by task where there are no classes.

    Attributes:
        method: pca: the two axes along which codes differ most; tsne: neighbours stay neighbours, distances
            and sizes mean nothing (van der Maaten & Hinton 2008).
        n: images at most.
        perplexity: of t-SNE, about the number of neighbours.
    """

    method: Literal["pca", "tsne"] = "pca"
    n: Annotated[int, Ge(4)] = 2000
    perplexity: Annotated[float, Ge(1)] = 30.0

    def __call__(self, context: Context) -> Findings:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        codes = context.codes("test", self.n)
        code = codes.code.double().numpy()
        if min(code.shape) < 2:
            raise InputError(
                f"{context.name}: {code.shape[0]} codes of {code.shape[1]} dimensions make no map"
            )
        row, kind = (
            {"method": self.method, "images": len(code), "latent_size": code.shape[1]},
            codes.classes(),
        )
        if self.method == "pca":
            axes = ("first principal axis", "second")
            pca = PCA(n_components=2, svd_solver="full")
            place = pca.fit_transform(code)
            row["variance_explained"] = float(pca.explained_variance_ratio_.sum())
        else:
            axes = ("first t-SNE axis", "second")
            perplexity = min(self.perplexity, (len(code) - 1) / 3)
            tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=context.seed)
            place = tsne.fit_transform(code)
            row["kl_divergence"] = float(tsne.kl_divergence_)
        x, y = place.T.tolist()
        rows = lines_of(**{"index": codes.index, "class": kind, "x": x, "y": y})
        return Findings([row], rows, scatter(torch.from_numpy(place), kind, axes))
