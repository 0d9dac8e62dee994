"""Every knob once: command line > environment > file > default."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli import app
from stream.commands.options import frame_limits
from stream.settings import Settings, SettingsError, load_settings, sources


def test_the_command_line_wins_over_the_environment_that_over_the_file_that_over_the_default(tmp_path, monkeypatch):
    config = tmp_path / "night.toml"
    config.write_text('group_id = "file"\nsurvey = "file"\ndevice = "file"\n')
    monkeypatch.setenv("NEEDLESTREAM_GROUP_ID", "environment")
    monkeypatch.setenv("NEEDLESTREAM_SURVEY", "environment")
    given = {"group_id": "command line", "topic_prefix": None}
    settings = load_settings(config, given)
    assert (settings.group_id, settings.survey, settings.device) == ("command line", "environment", "file")
    assert settings.topic("frames") == "frames"
    origins = sources(config, given)
    assert origins["group_id"] == "command line"
    assert origins["survey"] == "environment"
    assert origins["device"] == f"file {config}"
    assert origins["topic_prefix"] == "default"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('grup_id = "x"', "grup_id: no such setting"),
        ("max_message_bytes = 12", r"max_message_bytes \(file .*night.toml\)"),
        ('delivery = "at-most-once"', "delivery"),
        ("this is no toml", "not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, says):
    config = tmp_path / "night.toml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load_settings(config, {})


def test_a_mistake_elsewhere_is_named_with_where_it_is(monkeypatch):
    with pytest.raises(SettingsError, match=r"threshold \(command line\)"):
        load_settings(None, {"threshold": 2.0})
    monkeypatch.setenv("NEEDLESTREAM_PARTITIONS", "many")
    with pytest.raises(SettingsError, match=r"partitions \(NEEDLESTREAM_PARTITIONS\)"):
        load_settings(None, {})
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(Path("/nowhere.toml"), {})


@pytest.mark.parametrize("roots", ["/data, file:///more", ["/data", "/more"]])
def test_claim_roots_are_folders_or_uris_separated_by_commas(roots):
    assert load_settings(None, {"claim_roots": roots}).claim_roots == (Path("/data"), Path("/more"))


def test_settings_shows_each_setting_with_its_origin_and_no_secret(tmp_path, monkeypatch):
    config = tmp_path / "night.toml"
    secrets = ("sasl_password", "sasl_oauth_token", "sasl_oauth_client_secret", "tls_key_password")
    secrets += ("schema_registry_password",)
    assert set(secrets) == {n for n, f in Settings.model_fields.items() if "SecretStr" in str(f.annotation)}
    config.write_text("".join(f'{name} = "hay&stack"\n' for name in secrets))
    monkeypatch.setenv("NEEDLESTREAM_TOPIC_PREFIX", "night.")
    result = CliRunner().invoke(app, ["settings", "--config", str(config)])
    assert result.exit_code == 0
    assert "hay&stack" not in result.output
    lines = {words[1]: words for line in result.stdout.splitlines() if len(words := line.split()) > 4}
    assert set(Settings.model_fields) <= set(lines)
    assert "night." in lines["topic_prefix"]
    assert "environment" in lines["topic_prefix"]
    assert all("*****" in lines[name] for name in secrets)
    assert "hay&stack" not in repr(load_settings(config, {}))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism must then be set"),
        ({"sasl_mechanism": "PLAIN"}, "security_protocol must then be SASL_SSL"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u"}, "sasl_password"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs one of sasl_oauth_token"),
        ({"alert_framing": "confluent"}, "schema_registry_url must then be set"),
        ({"schema_registry_url": "http://127.0.0.1", "schema_registry_username": "u"}, "needs schema_registry_pass"),
    ],
)
def test_half_a_login_is_a_mistake_that_says_what_lacks(given, says):
    with pytest.raises(SettingsError, match=says):
        load_settings(None, given)


def test_no_secret_is_an_option_of_a_command():
    for command in ("run", "replay", "topics"):
        shown = CliRunner().invoke(app, [command, "--help"]).output
        assert "--bootstrap-servers" in shown
        assert not any(word in shown for word in ("password", "--sasl-oauth-token ", "client-secret"))


@pytest.mark.parametrize("command", ["run", "replay", "topics", "broker", "settings"])
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "needlestream" in result.output.lower()


@pytest.mark.parametrize("command", [["run"], ["topics"], ["replay", "."]])
def test_a_broker_that_is_not_there_is_named_without_a_traceback(command):
    result = CliRunner().invoke(app, [*command, "--bootstrap-servers", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in result.output
    assert "needlestream broker" in result.output
    assert "Traceback" not in result.output


def test_a_wrong_setting_is_a_usage_error():
    result = CliRunner().invoke(app, ["topics", "--bootstrap-servers", "127.0.0.1:1", "--partitions", "0"])
    assert result.exit_code == 2
    assert "partitions" in result.output


def test_the_limits_on_a_file_are_those_of_the_settings():
    given = {"max_pixels": 11, "max_hdus": 12, "max_header_bytes": 5000, "max_decompressed_bytes": 6000}
    assert dataclasses.asdict(frame_limits(load_settings(None, given))) == given


SECURITY = ("security_", "sasl_", "tls_", "claim_", "metrics_", "max_pixels", "max_hdus", "max_header", "max_dec")
SECURITY += ("max_claim", "max_message", "watch_", "schema_registry_")


def test_the_page_of_settings_lists_all_with_the_test_of_each_that_has_to_do_with_security():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    rows = [line.strip("| \n").split(" | ") for line in page.read_text().splitlines() if line.startswith("| `")]
    told = {row[0].strip("`"): row for row in rows}
    assert list(told) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description in told[name]
        if name.startswith(SECURITY):
            test = page.parents[1] / told[name][-1].strip("` ")
            assert name in test.read_text(), f"{test.name} does not speak of {name}"
