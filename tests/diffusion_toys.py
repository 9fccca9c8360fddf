"""Paths of every kind, for tests of what goes along them."""

from lit_gen.diffusion.path import EDM, Cosine, Straight, Table, cosine, linear

PATHS = {
    "linear": Table(linear(1000)),
    "cosine chain": Table(cosine(1000)),
    "cosine": Cosine(),
    "straight": Straight(),
    "edm": EDM(),
}
