"""The table over many runs."""

import csv
import io
import json
import math

import pytest
import torch
from analysis_toys import FirstPixels, OnlySamples, make_context, test_images

from lit_gen.core.types import InputError
from lit_gen.evaluation.overview import (
    RunNumbers,
    frame_of,
    markdown,
    measure,
    memory_kept,
    overview_of,
    picture_of,
    read_scores,
    training_speed,
)
from lit_gen.evaluation.tables import as_csv
from lit_gen.evaluation.uses.probe import Probe

RUNS = [
    RunNumbers("wae", 0, {"fid": 10.0, "recall": 0.25, "parameters": 1000}, "judge"),
    RunNumbers("gan", 0, {"fid": 7.0, "parameters": 5}, "judge"),
    RunNumbers("wae", 1, {"fid": 14.0, "recall": 0.75, "parameters": 1000}, "judge"),
    RunNumbers("wae", 2, {"fid": 12.0, "parameters": 1000}, "judge"),
]


def test_a_line_is_mean_and_standard_deviation_over_seeds_in_the_order_given():
    wae, gan = overview_of(frame_of(RUNS)).to_dict("records")
    assert (wae["model"], wae["seeds"], gan["model"], gan["seeds"]) == ("wae", "0 1 2", "gan", "0")
    assert (wae["fid"], wae["fid_std"], wae["fid_n"]) == (12.0, 2.0, 3)  # 10, 12, 14
    assert (wae["recall"], wae["recall_n"], gan["recall_n"]) == (0.5, 2, 0)
    assert gan["fid"] == 7.0 and math.isnan(gan["fid_std"]) and math.isnan(gan["recall"])


def test_the_markdown_marks_the_best_and_says_what_is_missing():
    lines = markdown(overview_of(frame_of(RUNS)), ["A note."]).splitlines()
    assert lines[0] == "| model | seeds | FID | recall | parameters |"
    assert lines[1] == "|---|---|---|---|---|"
    assert lines[2] == "| wae | 3 | 12 +- 2 | 0.500 +- 0.354 (2 of 3) | 1,000 |"
    assert lines[3] == "| gan | 1 | **7** | - | 5 |"
    assert lines[-1] == "A note."


def test_the_files_hold_every_digit():
    runs = list(csv.DictReader(io.StringIO(as_csv(frame_of(RUNS)))))
    assert [(r["model"], r["seed"], r["fid"], r["recall"], r["parameters"]) for r in runs] == [
        ("wae", "0", "10.0", "0.25", "1000"),
        ("gan", "0", "7.0", "", "5"),
        ("wae", "1", "14.0", "0.75", "1000"),
        ("wae", "2", "12.0", "", "1000"),
    ]


def test_every_quantity_has_a_panel():
    picture = picture_of(overview_of(frame_of(RUNS)))
    assert picture.dtype == torch.uint8 and picture.shape[2] == 3
    assert len(picture.flatten(0, 1).unique(dim=0)) > 5


def write_scores(folder, *rows):
    header = "after_task,on_task,metric,value,extractor,extractor_hash,split,num_real,num_fake,seed"
    (folder / "scores.csv").write_text("\n".join([header, *rows]) + "\n")


def test_scores_are_those_over_all_tasks_after_the_last_one(tmp_path):
    write_scores(
        tmp_path,
        "1,all,nll,97.5,,,test,100,0,0",
        "0,all,fid,1.0,lenet,abc,test,50,50,0",
        "1,0,fid,2.0,lenet,abc,test,50,50,0",
        "1,all,fid,3.0,lenet,abc,test,100,90,0",
        "1,all,recall,nan,lenet,abc,test,100,90,0",
        "1,all,floor_fid,4.0,lenet,abc,test,100,90,0",
        "1,all,fid,5.0,inception,def,test,100,90,0",
    )
    scores, judge = read_scores(tmp_path)
    assert scores == {"fid": 3.0, "nll": 97.5} and judge == "lenet (abc), 100 real and 90 generated images"
    assert read_scores(tmp_path / "nowhere") == ({}, "")
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"scores.csv: cannot be read"):
        read_scores(tmp_path)


def test_scores_that_lost_lines_are_refused(tmp_path):
    write_scores(tmp_path, "0,all,fid,1.0,lenet,abc,test,50,50,0", "1,all,fid,3.0,lenet,abc,test,100,90,0")
    said = {"status": "FINISHED", "scores": {"fid/lenet": {"all": 3.0}}}
    (tmp_path / "summary.json").write_text(json.dumps(said))
    assert read_scores(tmp_path)[0] == {"fid": 3.0}
    write_scores(tmp_path, "0,all,fid,1.0,lenet,abc,test,50,50,0")
    with pytest.raises(InputError, match="another fid/lenet"):
        read_scores(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(said | {"status": "KILLED"}))
    assert read_scores(tmp_path)[0] == {"fid": 1.0}  # of a run that has gone on since


def test_speed_is_that_of_all_phases_together():
    phases = [{"images": 300, "seconds": 2.0}, {"images": 100, "seconds": 6.0}]
    assert training_speed(phases) == {"train_seconds": 8.0, "images_per_second": 50.0}
    assert training_speed([]) == {"train_seconds": 0}


def test_memory_is_that_of_the_task_that_keeps_most_and_only_of_several_tasks():
    tasks = [{"task": k, "seconds": 9e9, "bytes_of_images": k * 10**6, "bytes_of_codes": 5} for k in (2, 1)]
    assert memory_kept(tasks) == {"memory_kept": 2.000005}
    assert memory_kept(tasks[:1]) == memory_kept([]) == {}


def test_what_a_model_cannot_do_is_not_measured():
    context = make_context(FirstPixels())
    values = measure(context, Probe())
    assert values["parameters"] == 3
    assert values["mse"] == pytest.approx(
        float(test_images(context).flatten(1)[:, 6:].square().sum() / 40 / 256)
    )
    assert set(values) == {"parameters", "mse", "linear_accuracy", "knn_accuracy"}
    assert measure(make_context(OnlySamples()), Probe()) == {"parameters": 0}
    assert set(measure(make_context(labelled_share=0.0), Probe())) == {"parameters", "mse"}
