"""The front door: help, lists, exit codes; that it is quick, and silent about broken pipes."""

import os
import subprocess
import sys

import pytest

from lit_gen.__main__ import main
from lit_gen.cli import choices, group_names, help, nearest
from lit_gen.cli.help import listing, verbs

HEAVY = ("torch", "lightning", "hydra", "omegaconf", "pydantic", "numpy", "mlflow")


def python(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, **more)


@pytest.fixture
def toy_verbs(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(
        'raise ImportError("read, not run")\nHELP = """\nlit-gen train [key=value ...]\n\nTrains.\n"""\n'
    )
    (tmp_path / "sample.py").write_text('HELP = """Samples."""\n')
    (tmp_path / "other.py").write_text('x = {}\nx["HELP"] = 3\n')
    found = verbs(tmp_path)
    monkeypatch.setattr(help, "verbs", lambda: found)
    return found


def test_verbs_are_the_files_with_a_help_text_and_are_not_imported(toy_verbs):
    assert toy_verbs == {"sample": "Samples.", "train": "lit-gen train [key=value ...]\n\nTrains."}


def test_overview_shows_every_verb_with_its_first_sentence(toy_verbs, capsys):
    assert main(["--help"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "Trains."] in lines and ["sample", "Samples."] in lines


@pytest.mark.parametrize("words", [["train", "--help"], ["train", "model=vae", "-h"]])
def test_help_of_a_verb(toy_verbs, capsys, words):
    assert main(words) == 0
    assert capsys.readouterr().out == "lit-gen train [key=value ...]\n\nTrains.\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["'trian'", "sample, train", "Did you mean train?"]),
        (["model=vae"], ["verb is missing"]),
        ([], ["verbs:"]),
        (["train", "--devices=3"], ["'--devices=3'", "Keys have no dashes: devices=3"]),
        (["train", "--hepl"], ["Did you mean --help?"]),
        (["--cfg"], ["'--cfg'"]),
        (["sample", "--cfg"], ["no config of its own"]),
        (["--list", "modle"], ["'modle'"]),
    ],
)
def test_a_mistake_is_one_message_on_stderr_and_exit_code_2(toy_verbs, capsys, words, parts):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert all(part in err for part in parts), err


def test_listing_takes_names_descriptions_and_default_from_the_files(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "train.yaml").write_text("defaults:\n  - model: vae\n  - optional paper: null\n")
    (tmp_path / "model" / "vae.yaml").write_text("# @package _global_\n# Kingma & Welling.\n# More.\n")
    (tmp_path / "model" / "gan.yaml").write_text("a: 1\n")
    (tmp_path / "model" / "_part.yaml").write_text("a: 1\n")
    assert group_names(tmp_path) == ["model"] and choices("model", tmp_path) == ["gan", "vae"]
    lines = [line.split() for line in listing(conf=tmp_path).splitlines()]
    assert lines == [["model"], ["gan"], ["*", "vae", "Kingma", "&", "Welling."]]
    with pytest.raises(help.UnknownGroup, match="Did you mean model"):
        listing("modle", tmp_path)


@pytest.mark.parametrize("words", [["--help"], ["--list"], ["--version"]])
def test_answers_come_without_heavy_imports(words):
    code = (
        "import sys; from lit_gen.__main__ import main; code = main(sys.argv[1:]); "
        f"sys.exit(code or ','.join(sorted(set({HEAVY!r}) & set(sys.modules))) or 0)"
    )
    result = python("-c", code, *words)
    assert result.returncode == 0 and result.stdout, result.stderr


@pytest.mark.slow
def test_help_answers_in_under_a_second_from_any_folder(tmp_path):
    # CPU seconds of the process, not those on the clock: other work on the machine does not count.
    before = os.times()
    result = python("-m", "lit_gen", "--list", cwd=tmp_path)
    after = os.times()
    assert "digits" in result.stdout
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 1.0


@pytest.mark.parametrize(
    ("word", "said"),
    [("modle=vae", "Did you mean model?"), ("model=vea", "vae?"), ("model/learner=vea", "vae?")],
)
def test_a_mistyped_name_is_refused_before_heavy_imports(word, said):
    code = f"import sys; from lit_gen.__main__ import main; main(['train', {word!r}]); "
    code += f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = python("-c", code)
    assert said in result.stderr and result.stdout == "[]\n"


@pytest.mark.slow
def test_a_reader_that_leaves_early_gets_no_traceback():
    with subprocess.Popen(
        [sys.executable, "-m", "lit_gen", "--list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.wait(timeout=60)
    assert errors == "" and process.returncode == 141


def test_a_mistake_in_a_config_ends_with_2_and_one_message(toy_verbs, capsys):
    assert main(["train", "--cfg", "modle=vae"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Did you mean model?" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("mnsit", ["cifar10", "mnist"], "mnist"),
        ("lr", ["seed", "model.optimizer.lr"], "model.optimizer.lr"),
        ("model.lr", ["model.optimizer.lr", "trainer.lr"], "model.optimizer.lr"),
        ("trainer.max_epoch", ["max_phase_epochs", "trainer.max_epochs"], "trainer.max_epochs"),
        ("xyzzy", ["cifar10", "mnist"], None),
        ("a", [], None),
    ],
)
def test_nearest_name(name, names, expected):
    assert nearest(name, names) == expected
