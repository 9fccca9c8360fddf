"""TensorBoard shows one value per step after a resume."""

import pytest

from lit_gen.tracking.pictures import tensorboard

pytest.importorskip("tensorboard")


def test_what_a_resumed_run_logs_again_is_shown_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for next_step, steps in ((None, range(10)), (5, range(5, 12))):
        logger = tensorboard(tmp_path, next_step=next_step)
        for step in steps:
            logger.log_metrics({"loss": float(step)}, step)
        logger.save()  # and killed: never finalized
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(point.step, point.value) for point in shown] == [(step, step) for step in range(12)]
