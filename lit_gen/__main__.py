"""lit-gen <verb> [key=value ...]; `python -m lit_gen` is the same. See lit_gen/cli for the verbs.

Exit codes: 0 it went well, 1 a failure (with its traceback; without one when a model diverged or a disk took
no more), 2 something that the user gave cannot be used.
"""

from __future__ import annotations

import importlib
import os
import sys

from lit_gen.cli import CONF, did_you_mean, help, mistyped
from lit_gen.cli.parent import bound_to_first_process
from lit_gen.cli.places import at_home, some_home
from lit_gen.tracking.masking import without_secrets

_OF_SEVERAL = ("train", "evaluate", "sample", "stats", "plan", "check")
"""Verbs that look themselves at who has started them; the others are one process."""


def main(argv: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if getattr(sys.stdout, "errors", "") == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no text that ASCII lacks ends a run
    try:
        with bound_to_first_process():
            code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python flushes once more at exit and needs a file then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as if SIGPIPE had ended us, which is what shells expect
    return code


def _run(words: list[str]) -> int:
    verbs = help.verbs()
    verb, rest = (words[0], words[1:]) if words and not words[0].startswith("-") else (None, words)
    options = [word for word in rest if word.startswith("-")]
    keys = [word for word in rest if not word.startswith("-")]
    if verb is not None and verb not in verbs:
        there_are = f"There are {', '.join(verbs)}."
        if "=" in verb:
            return _mistake(f"the verb is missing before {verb!r}. {there_are} See lit-gen --help.")
        return _mistake(
            f"there is no verb {verb!r}. {did_you_mean(verb, verbs)}{there_are} See lit-gen --help."
        )
    if not words:
        return _mistake(help.overview())
    if {"--help", "-h"} & set(options):
        return _say(verbs[verb] if verb else help.overview())
    if "--version" in options:
        from importlib.metadata import version

        return _say(f"lit-gen {version('lit-gen')}")
    if "--list" in options:
        try:
            return _say("\n\n".join(map(help.listing, keys)) if keys else help.listing())
        except help.UnknownGroup as unknown:
            return _mistake(str(unknown))
    for option in options:
        if verb is None or option != "--cfg":
            known = ("--help", "--list", "--version", "--cfg")
            guess = (
                f"Keys have no dashes: {option.lstrip('-')}. "
                if "=" in option
                else did_you_mean(option, known)
            )
            there_are = f"There are {', '.join(known)} (that one after a verb)."
            return _mistake(f"there is no option {option!r}. {guess}{there_are}")
    if options and not (CONF / f"{verb}.yaml").is_file():
        return _mistake(
            f"{verb} has no config of its own to show: it takes the one that the checkpoint holds, which is "
            "also in config.yaml of the run's folder."
        )
    told = [key for key in keys if not key.startswith("trust=")]
    if mistakes := mistyped(told, CONF / (f"{verb}.yaml" if verb == "train" else "none")):
        return _mistake("\n".join(mistakes))
    # From here on torch is needed.
    from lit_gen.cli.allowed import trusting
    from lit_gen.cli.launchers import settle
    from lit_gen.core.files import disk_failure
    from lit_gen.core.types import InputError

    # Of the command line alone: no verb hands it on to a file.
    trust = [word.removeprefix("trust=") for word in keys if word.startswith("trust=")]
    keys = [word for word in keys if not word.startswith("trust=")]
    try:
        keys = list(map(at_home, keys))
        with trusting(trust), some_home():
            if options:
                from lit_gen.cli import config

                return _say(config.as_yaml(without_secrets(config.compose(verb, keys).config)).rstrip())
            if verb not in _OF_SEVERAL:
                settle({"devices": 1})
            return importlib.import_module(f"lit_gen.cli.{verb}").run(keys)
    except InputError as mistake:
        return _mistake(str(mistake))
    except OSError as error:
        if said := disk_failure(error):
            return _mistake(said, code=1)
        raise
    except RuntimeError as error:
        from datamodules.loading import workers_failure

        if said := workers_failure(error):
            return _mistake(said, code=1)
        raise


def _say(answer: str) -> int:
    sys.stdout.write(f"{answer}\n")
    return 0


def _mistake(message: str, code: int = 2) -> int:
    message = without_secrets(message)
    sys.stderr.write(f"{message}\n" if message.startswith("lit-gen") else f"lit-gen: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
