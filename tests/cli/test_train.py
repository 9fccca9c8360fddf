"""What a run is made of, before it trains."""

from __future__ import annotations

import pytest
from test_runs import TINY

from lit_gen.cli.config import compose
from lit_gen.cli.run_folder import new_folder
from lit_gen.cli.train import assemble


@pytest.mark.parametrize("chosen", ["[default,ema]", "[ema,default]"])
def test_callbacks_stand_in_the_order_that_they_need_whoever_is_named_first(tmp_path, chosen):
    words = [*TINY, f"callbacks={chosen}", f"output_dir={tmp_path}/run"]
    composed = compose("train", words)
    folder = new_folder(composed.config["output_dir"], composed.choices, 0)
    folder.make()
    trainer = assemble(composed, folder, None, {}).trainer
    names = [type(callback).__name__ for callback in trainer.callbacks]
    assert names[:4] == ["TaskSwitch", "SharedBuffers", "AveragedWeights", "Scoring"]
    assert [name for name in names if name in ("Grid", "RunRecord", "RunCheckpoints")] == [
        "Grid",
        "RunRecord",
        "RunCheckpoints",
    ]


def test_a_new_run_is_named_after_what_it_trains():
    choices = {"model": "vae", "data": "digits", "stream": "none"}
    assert new_folder(None, choices, 3).path.name.startswith("vae-digits-s3-")
    choices["stream"] = "split_classes"
    assert new_folder(None, choices, 3).path.name.startswith("vae-digits-split_classes-s3-")
