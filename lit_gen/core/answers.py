"""What a family returns, looked at as it comes, so that a mistake is told in the family's own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lit_gen.core.types import InputError, Terms


def terms_from(loss: Callable[..., Any], terms: Any, trains: bool = True) -> Terms:
    """The terms that a step or loss gave.

    Args:
        trains: there must be a "loss" with a gradient among them.

    Raises:
        InputError: they are no terms.
    """
    wrong = None
    if not isinstance(terms, dict):
        wrong = _told(terms)
    elif trains and "loss" not in terms:
        wrong = f"a dict with {', '.join(map(repr, terms)) or 'nothing'}"
    elif trains and isinstance(terms["loss"], Tensor) and not terms["loss"].requires_grad:
        wrong = "a loss without gradient: nothing that it was computed from is trained in this phase"
    else:
        for name, value in terms.items():
            if not isinstance(value, Tensor) or value.ndim:
                wrong = f"{name!r}: {_told(value)}"
                break
    if wrong is None:
        return terms
    name = getattr(getattr(loss, "func", loss), "__qualname__", type(loss).__name__)
    what = "with 'loss' and whatever else is to be seen" if trains else "by name"
    raise InputError(
        f"{name} must return a dict of terms {what}, each the mean over the batch as a tensor without "
        f"dimensions (loss.mean()); it returned {wrong}"
    )


def images_from(draw: Callable[..., Any], image: Any, shape: tuple[int, ...]) -> Tensor:
    """The images that a generator gave, [B, C, S, S].

    Raises:
        InputError: they are none, or have another shape.
    """
    if isinstance(image, Tensor) and tuple(image.shape) == shape and image.is_floating_point():
        return image
    raise InputError(
        f"{draw.__qualname__} must return images, float32 {list(shape)} with pixels in [-1, 1]; it returned "
        f"{_told(image)}"
    )


def logits_from(classify: Callable[..., Any], logits: Any, shape: tuple[int, ...]) -> Tensor:
    """What a classifier gave, [B, K].

    Raises:
        InputError: it is something else.
    """
    if isinstance(logits, Tensor) and tuple(logits.shape) == shape:
        return logits
    raise InputError(
        f"{classify.__qualname__} must return logits {list(shape)}, a number for each class of an image; it "
        f"returned {_told(logits)}"
    )


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
