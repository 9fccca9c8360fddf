"""Secrets: out of everything that is kept or shown, and asked for again."""

import pytest

from lit_gen.core.types import InputError
from lit_gen.tracking.connection import find_address, with_secrets
from lit_gen.tracking.masking import without_secrets


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("http://ann:hunter2@host:5000/x", "http://host:5000/x"),
        ("http://ann:hun/ter2@host:5000", "http://host:5000"),
        ("http://ann:hun@ter2@host", "http://host"),
        ("http://ann:hun?ter=2#@host", "http://host"),
        ("https://hunter2@host", "https://host"),
        ("https://host/?token=hunter2&a=b", "https://host/?token=***&a=***"),
        ("postgresql+psycopg2://u:hun/ter2@h:5/db?sslpassword=hunter2", "postgresql+psycopg2://***@h:5/db?sslpassword=***"),
        ("sqlite:////tmp/a b.db?token=hunter2", "sqlite:////tmp/a b.db?token=***"),
        ("at http://u:hunter2@h failed, see https://h/a@1.zip", "at http://h failed, see https://h/a@1.zip"),
        ("logger.api_key=hunter2 +logger.token=hunter2 x", "logger.api_key=*** +logger.token=*** x"),
        ("logger.tracking_uri=null tokens=5 monkey=a a@b", "logger.tracking_uri=null tokens=5 monkey=a a@b"),
    ],
)  # fmt: skip
def test_user_password_and_every_value_of_a_query_are_masked(typed, shown):
    assert without_secrets(typed) == shown
    assert without_secrets(shown) == shown


def test_what_has_the_name_of_a_secret_is_masked_in_a_configuration():
    config = {"logger": {"api_key": "hunter2", "headers": [{"X-Token": "hunter2"}], "key": "loss"}}
    config |= {"net": {"tokens": 5, "num_tokens": "x", "token": None}, "my_password": "${oc.env:MINE}"}
    shown = without_secrets(config)
    assert shown["logger"] == {"api_key": "***", "headers": [{"X-Token": "***"}], "key": "loss"}
    assert {k: v for k, v in shown.items() if k != "logger"} == {
        k: v for k, v in config.items() if k != "logger"
    }


def test_what_was_not_kept_comes_from_the_environment_or_is_asked_for(monkeypatch, no_mlflow_settings):
    address = "postgresql://u:hunter2@host/db"
    stored = without_secrets({"logger": {"tracking_uri": address}, "seed": 0})
    with pytest.raises(
        InputError, match=r"logger\.tracking_uri=postgresql://\*\*\*@host.*MLFLOW_TRACKING_URI"
    ):
        with_secrets(stored)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:hunter2@elsewhere/db")
    with pytest.raises(InputError, match="give it again"):
        with_secrets(stored)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert with_secrets(stored) == {"logger": {"tracking_uri": address}, "seed": 0}
    with pytest.raises(InputError, match=r"logger\.api_key=\*\*\*"):
        with_secrets(without_secrets({"logger": {"api_key": "hunter2"}}))


def test_user_and_password_of_a_server_reach_mlflow_with_any_character(
    tmp_path, monkeypatch, no_mlflow_settings
):
    import os

    assert find_address("http://ann:a/b@c:%40?#@host:5000/x", tmp_path) == "http://host:5000/x"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ann"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "a/b@c:@?#"
