"""Scores of strange images."""

import itertools

import pytest
import torch
from analysis_toys import FirstPixels, make_context, test_images

from lit_gen.core.types import InputError
from lit_gen.evaluation.uses.anomaly import Anomaly, roc_auc


def pairs_won(usual, strange):
    """The definition: of all pairs, those in which the strange one has the higher score."""
    wins = [(b > a) + 0.5 * (b == a) for a, b in itertools.product(usual.tolist(), strange.tolist())]
    return float(sum(wins)) / len(wins)


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    assert roc_auc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 5.0])) == pytest.approx(4.5 / 6)
    torch.manual_seed(0)
    for _ in range(5):
        usual, strange = torch.randint(0, 9, (30,)).float(), torch.randint(3, 12, (11,)).float()
        assert roc_auc(usual, strange) == pytest.approx(pairs_won(usual, strange))


class KnowsClasses(FirstPixels):
    """Gives every image back, but for those of one class, which become grey."""

    def __init__(self, unknown: int) -> None:
        super().__init__()
        self.unknown = unknown

    def reconstruct(self, batch):
        return batch.image * (batch.label != self.unknown)[:, None, None, None]


def test_a_model_that_cannot_draw_a_class_finds_it_strange():
    """Ten images of each class. Images of class 2 have an error and all others none: held out itself it wins
    every pair. Class 1 ties with 20 others (half a win each) and loses to 10.
    """
    context = make_context(KnowsClasses(2))
    assert Anomaly(held_out=1)(context).table[0]["auc"] == pytest.approx(0.5 * 20 / 30)
    found = Anomaly(held_out=2)(context)
    assert found.table[0]["auc"] == 1.0
    scores = torch.tensor([row["score"] for row in found.rows])
    label = torch.tensor([row["label"] for row in found.rows])
    assert [row["index"] for row in found.rows] == [*range(40)]
    expected = test_images(context).square().flatten(1).mean(1) / 4 * (label == 2)
    torch.testing.assert_close(scores, expected)


def test_several_classes_have_a_row_together_and_one_each():
    table = Anomaly(held_out=[2, 1])(make_context(KnowsClasses(2))).table
    assert [row["held_out"] for row in table] == ["1 2", "1", "2"]
    assert [row["images"] for row in table] == [20, 10, 10] and {row["others"] for row in table} == {20}
    assert [row["auc"] for row in table] == [0.75, 0.5, 1.0]


def test_classes_that_were_left_out_of_training_are_held_out_by_themselves():
    context = make_context(KnowsClasses(3), without_classes=[3])
    for held_out in (None, []):
        (row,) = Anomaly(held_out=held_out)(context).table
        assert row["held_out"] == "3" and row["auc"] == 1.0 and row["images"] == 10


class KnowsHowLikely(FirstPixels):
    def log_likelihood(self, batch, draws):
        return -batch.label.float() * draws


def test_the_score_can_be_minus_the_log_likelihood():
    found = Anomaly(held_out=3, score="likelihood", draws=7)(make_context(KnowsHowLikely()))
    assert [row["score"] for row in found.rows[:4]] == [0.0, 7.0, 14.0, 21.0]
    assert found.table[0]["auc"] == 1.0


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (None, r"trained on every class.*held_out=3.*data.without_classes"),
        (7, "classes 0, 1, 2, 3"),
        ([0, 1, 2, 3], "not all"),
    ],
)
def test_impossible_classes_to_hold_out_are_refused(held_out, said):
    with pytest.raises(InputError, match=said):
        Anomaly(held_out=held_out)(make_context())


def test_a_diverged_model_is_named():
    class Diverged(FirstPixels):
        def reconstruct(self, batch):
            return batch.image * float("nan")

    with pytest.raises(InputError, match="diverged"):
        Anomaly(held_out=1)(make_context(Diverged()))
