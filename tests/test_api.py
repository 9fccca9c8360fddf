"""lit_gen as a library: a session without configuration and Trainer, and the examples of docstrings."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys

import pytest
import torch

import lit_gen
from lit_gen.core.module import LitGenerator, LitModel

SESSION = """
import sys
import torch
from torch.utils.data import DataLoader
from lit_gen import Batch, Digits, FrechetDistance, LeNet, LeNetExtractor, VAE, to_uint8

torch.manual_seed(0)
data = Digits()
model, extract, fid = VAE(data.spec), LeNetExtractor(LeNet(1, 10), "lenet_digits"), FrechetDistance()
optimizer = model.make_optimizer(model.parameters())
real = data.dataset("train")
def distance():
    fid.reset()
    fid.update(extract(real[torch.arange(1000)].image)[0], real=True)
    fid.update(extract(to_uint8(model.sample(1000)))[0], real=False)
    return fid.compute()["fid"].item()
before = distance()
for epoch in range(5):
    for batch in DataLoader(real, 64, shuffle=True, collate_fn=Batch.ready):
        optimizer.zero_grad()
        model.step(batch, 0.0)["loss"].backward()
        optimizer.step()
print(before, distance(), "hydra" in sys.modules)
"""


def test_a_model_is_trained_and_scored_in_plain_torch():
    done = subprocess.run([sys.executable, "-c", SESSION], capture_output=True, text=True, check=True)
    before, after, has_hydra = done.stdout.split()
    assert float(after) < float(before) / 3
    assert has_hydra == "False"


def test_the_examples_of_public_docstrings_hold():
    runner = doctest.DocTestRunner(verbose=False)
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    without = []
    for name in lit_gen.__all__:
        public = getattr(lit_gen, name)
        names = vars(inspect.getmodule(public)) | {"torch": torch}
        names |= {word: getattr(lit_gen, word) for word in ("Batch", "ImageSpec")}
        (found,) = finder.find(public, name, globs=names)
        runner.run(found)
        is_a_class_of_ours = inspect.isclass(public) and public.__module__.startswith("lit_gen.")
        if not found.examples and is_a_class_of_ours and not issubclass(public, tuple):
            without.append(name)
    assert runner.failures == 0
    assert set(without) <= {"LeNet", "TorchFidelityInception"}  # shown with the extractor; needs its weights


@pytest.mark.parametrize("name", [n for n in lit_gen.__all__ if n[0].isupper()])
def test_what_a_model_needs_is_its_spec(name):
    public = getattr(lit_gen, name)
    if not issubclass(public, LitModel):
        return
    parameters = inspect.signature(public).parameters
    needed = [word for word, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    models = {"learner", "generator", "classifier"}
    assert set(needed) <= {"spec", "num_tasks"} | models, "everything else has a default"
    if not models & set(needed):
        assert not [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
        assert next(iter(parameters)) == "spec" and list(parameters)[-1] == "schedule"
        model = public(lit_gen.ImageSpec(1, 32, 10), **({"num_tasks": 2} if "num_tasks" in needed else {}))
        assert isinstance(model, LitGenerator) == hasattr(model, "sample")


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'VEA'"):
        _ = lit_gen.VEA
    assert set(lit_gen.__all__) < set(dir(lit_gen))
