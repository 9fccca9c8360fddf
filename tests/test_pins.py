"""pyproject.toml (ranges), constraints.txt (exact) and environment.yml agree with what is installed."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = [text for group in PROJECT["optional-dependencies"].values() for text in group]
RANGES = [Requirement(text) for text in [*PROJECT["dependencies"], *OPTIONAL]]
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PINS = {canonicalize_name(name): Version(pin) for name, _, pin in (line.partition("==") for line in LINES)}


def test_constraints_are_exact_pins_by_name_each_once():
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert len(PINS) == len(LINES)


def test_constraints_leave_packages_of_one_platform_to_torch():
    assert [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton"))] == []


@pytest.mark.parametrize("requirement", RANGES, ids=str)
def test_every_direct_dependency_is_pinned_within_its_range(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_everything_that_a_dependency_needs_here_is_pinned():
    missing, seen, queue = set(), set(), list(RANGES)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add(key)
        if name not in PINS:
            missing.add(name)
        for text in metadata.requires(requirement.name) or []:
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append(needed)
    # setuptools comes with every environment that can install this project.
    assert missing - {"setuptools"} == set()


def test_the_environment_has_what_is_pinned():
    installed = {canonicalize_name(d.name): Version(d.version) for d in metadata.distributions()}
    other = {
        name: f"{installed[name]} instead of {pin}"
        for name, pin in PINS.items()
        if name in installed and Version(installed[name].public) != pin
    }
    assert other == {}


def test_conda_installs_the_same_pins():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    dependencies = yaml.safe_load(text)["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e .[test]"]
    python = next(entry for entry in dependencies if str(entry).startswith("python="))
    assert Version(python.partition("=")[2]) in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_compromised_lightning_is_excluded():
    specifier = next(r.specifier for r in RANGES if r.name == "lightning")
    assert all(Version(bad) not in specifier for bad in ("2.6.2", "2.6.3"))


def test_make_and_ci_install_through_the_pins():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-c constraints.txt -e '.[test]'" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
