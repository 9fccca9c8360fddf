"""The same command wherever it is given: homes, folders, terminals, systems."""

import io
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException
from processes import Started
from test_runs import TINY

import lit_gen.__main__
from lit_gen.__main__ import main
from lit_gen.cli import ground
from lit_gen.cli.config import compose, recompose
from lit_gen.cli.places import at_home, some_home
from lit_gen.cli.stop import Stop
from lit_gen.core import memory
from lit_gen.core.types import InputError

LIKE_PATHS = ["~logger.tags", "name=a~b", "a=~b", "~", "~judges/x", "data.root=/a/~/b", "a=1"]


@pytest.fixture
def homeless(monkeypatch):
    """As in a container whose user has no name and no HOME."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])


def test_a_home_is_put_where_a_path_begins_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    typed = ["out=~/x", "out=~", "runs=~/a,~/b", "runs=[~/a, ~/b]", 'a="~/b"', "uri=sqlite:///~/m.db", "~/a"]
    put = [
        "out=/h/x",
        "out=/h",
        "runs=/h/a,/h/b",
        "runs=[/h/a, /h/b]",
        'a="/h/b"',
        "uri=sqlite:////h/m.db",
        "/h/a",
    ]
    assert at_home(typed) == put
    assert at_home("out=~root/x") == f"out={pwd.getpwnam('root').pw_dir}/x"
    assert at_home({"keys": [LIKE_PATHS]}) == {"keys": [LIKE_PATHS]}
    monkeypatch.setenv("LIT_GEN_DATA", "~/data")  # of a container's settings, which no shell reads
    assert compose("train", ["data=mnist"]).config["data"]["root"] == "/h/data"


def test_every_verb_gets_the_home_and_a_home_that_nobody_knows_is_refused(monkeypatch, capsys, homeless):
    seen = []
    monkeypatch.setattr("lit_gen.cli.train.run", lambda words: seen.append((words, Path.home())) or 0)
    assert main(["train", "resume=~/x"]) == 2
    assert "resume=~/x: nobody knows where ~ is; write the path, or set HOME" in capsys.readouterr().err
    assert main(["train", "resume=x"]) == 0 and not seen[0][1].exists()  # that home was there for so long
    monkeypatch.setenv("HOME", "/h")
    assert main(["train", "resume=~/x"]) == 0
    assert seen[1] == (["resume=/h/x"], Path("/h"))


def test_packages_that_look_for_a_home_find_one_if_there_is_none(homeless):
    with pytest.raises(RuntimeError):
        Path.home()
    with some_home():
        (Path.home() / "cache").mkdir()
        assert Path.home().stat().st_mode & 0o777 == 0o700
    assert "HOME" not in os.environ


def test_what_a_run_keeps_is_the_same_from_any_folder(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "it's? here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    (here / "own").touch()
    words = ["data=mnist", "model=vae", "extractor.weights=own"]
    words += ['logger.tracking_uri="sqlite:///my.db?timeout=9"']
    for name, root in (("tmp", tmp_path), ("here", here)):
        monkeypatch.chdir(root)
        monkeypatch.delenv("LIT_GEN_DATA", raising=False)
        run = compose("train", words).anchored()
        monkeypatch.chdir(elsewhere)
        again = recompose(run.source).config
        assert run.config == again and again["data"]["root"] == f"{root}/data"
        own = {"tmp": "own", "here": f"{here}/own"}  # weights that no file has are the package's
        assert again["extractor"]["weights"] == own[name]
        quoted = str(root).replace("'", "%27").replace("?", "%3F")
        assert again["logger"]["tracking_uri"] == f"sqlite:///{quoted}/my.db?timeout=9"
    monkeypatch.chdir(tmp_path)
    run = compose("train", ["data=mnist"]).anchored()
    monkeypatch.setenv("LIT_GEN_DATA", "/moved")  # has still its say
    assert recompose(run.source).config["data"]["root"] == "/moved"


def test_an_address_that_cannot_be_read_is_refused():
    with pytest.raises(InputError, match=r"sqlite:my.db: is no address; give sqlite:///<file>"):
        compose("train", ["logger.tracking_uri=sqlite:my.db"]).anchored()


def test_text_that_the_terminal_lacks_is_printed_with_replacement(monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii", "strict"))
    assert main(["train", "--cfg", "name=l\xe4uft"]) == 0
    assert b"\nname: l\\xe4uft\n" in printed.getvalue()


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true", "64", "transformer-engine"])
def test_weights_that_are_not_float32_are_refused_by_name(capsys, tmp_path, precision):
    assert main(["train", *TINY, f"trainer.precision={precision}", f"output_dir={tmp_path}/run"]) == 2
    assert "trainer.precision: expected 32-true, bf16-mixed or 16-mixed" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_names_of_one_system_are_not_needed(tmp_path):
    Started(on_another_system, *TINY, "cpu_threads=auto", f"output_dir={tmp_path}/run").ended()
    assert (tmp_path / "run" / "summary.json").is_file()


def on_another_system(*words):
    """What macOS and Windows lack, taken away from a training."""
    for name in ("sched_getaffinity", "sched_setaffinity", "sysconf", "killpg", "getppid", "getuid", "fork"):
        delattr(os, name)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGCHLD"):
        delattr(signal, name)
    sys.modules["resource"] = sys.modules["fcntl"] = sys.modules["pwd"] = None
    os.environ.pop("OMP_NUM_THREADS", None)
    memory.resource = None
    ground.kill(subprocess.Popen([sys.executable, "-c", "input()"]))
    with pytest.raises(SIGTERMException):
        Stop()(15, None)
    assert memory.peak_memory() is None and memory.machine_memory() > 10**9
    sys.exit(lit_gen.__main__.main(["train", *words]))
