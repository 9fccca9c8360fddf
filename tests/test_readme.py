"""The family that README.md shows is copied out of it, trains and goes on after a stop."""

from __future__ import annotations

import re
import shutil
import sys
from functools import partial

import torch
from test_runs import TINY, weights

from lit_gen.cli import CONF, train
from lit_gen.cli.allowed import trusting
from lit_gen.cli.config import compose
from lit_gen.core.types import Batch, ImageSpec

README = (CONF.parent / "README.md").read_text(encoding="utf-8").partition("## Add a family")[2]


def test_the_family_of_the_readme_runs_and_resumes(tmp_path, monkeypatch):
    code, config = (
        re.search(rf"^```{kind}\n(.*?)^```", README, re.M | re.S)[1] for kind in ("python", "yaml")
    )
    (tmp_path / "my_models.py").write_text(code)
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / "model" / "flow.yaml").write_text(config)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(train, "compose", partial(compose, conf=conf))
    words = [word for word in TINY if not word.startswith("model")]
    words += ["model=flow", "trainer.max_epochs=1", f"output_dir={tmp_path / 'run'}"]
    try:
        with trusting(["my_models"]):
            assert train.run(words) == 0
            whole = shutil.copytree(tmp_path / "run", tmp_path / "whole")
            for name in ("summary.json", "checkpoints/task-1.ckpt", "checkpoints/last.ckpt"):
                (tmp_path / "run" / name).unlink()
            assert train.run([f"resume={tmp_path / 'run'}"]) == 0
            after, before = weights(tmp_path / "run"), weights(whole)
            assert before.keys() and all(value.equal(after[name]) for name, value in before.items())
            composed = compose("train", ["model=replay_vae", "model/learner=flow"], conf)
            assert composed.config["model"]["learner"]["_target_"] == "my_models.Flow"
        flow = sys.modules["my_models"].Flow(ImageSpec(1, 2, 0))
        flow.log_scale.data.uniform_(-1, 1)
        # By the change of variables, with the whole Jacobian.
        image = torch.rand(5, 1, 2, 2) * 0.1
        jacobian = torch.autograd.functional.jacobian(lambda x: coded(flow, x), image.flatten(1)[0])
        code = coded(flow, image.flatten(1)[0])
        expected = torch.distributions.Normal(0, 1).log_prob(code).sum() + jacobian.det().abs().log()
        batch = Batch(image, *torch.zeros(3, 5, dtype=torch.long))
        torch.testing.assert_close(flow.log_likelihood(batch, 1)[0], expected)
    finally:
        sys.modules.pop("my_models", None)


def coded(flow, image):
    """The code of one image [4], by the couplings one after the other."""
    a, b = image[:2], image[2:]
    for net in flow.shifts:
        a, b = b + net(a), a
    return torch.cat([a, b]) * flow.log_scale.exp()
