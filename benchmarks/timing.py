"""What the benchmarks share: their words, and ways of doing the same that take turns."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import yaml


def options(**defaults: Any) -> dict[str, Any]:
    """The words KEY=VALUE of the command line over the defaults; values are YAML, as [8, 64]."""
    for word in sys.argv[1:]:
        key, _, value = word.partition("=")
        if key not in defaults:
            sys.exit(f"unknown option {key!r}; there are {', '.join(defaults)}")
        defaults[key] = yaml.safe_load(value)
    return defaults


def take_turns(ways: dict[str, Callable[[], float]], rounds: int) -> None:
    """Prints the median images per second of each way, and its share of the first's.

    They take turns, so that a busy machine hurts all alike.
    """
    rates = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(medians.values()))
    for name, values in rates.items():
        every = " ".join(f"{value:,.0f}" for value in values)
        print(f"{name:<18} {medians[name]:>10,.0f} images/s  {medians[name] / first:.2f}   ({every})")
