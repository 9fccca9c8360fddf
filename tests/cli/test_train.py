"""What a run is made of, before it trains."""

from __future__ import annotations

import pytest
from lightning import Callback
from test_runs import TINY
from toys import ToyGenerator

from lit_gen.cli.assembly import assemble
from lit_gen.cli.config import compose
from lit_gen.cli.lean import without_empty_hooks
from lit_gen.cli.run_folder import new_folder


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


def test_only_hooks_that_do_nothing_are_taken_away():
    class Counts(Callback):
        def on_train_batch_end(self, *args):
            pass

    callback, model = Counts(), ToyGenerator()
    without_empty_hooks(model, [callback])
    assert callable(callback.on_train_batch_end) and callback.on_before_backward is None
    assert callable(model.on_before_optimizer_step) and model.on_after_backward is None
