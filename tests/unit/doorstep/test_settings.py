"""Settings: frozen; an invalid value stops the service with one line. Pure."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from doorstep.errors import SettingsError
from doorstep.settings import (
    EX_CONFIG,
    Bind,
    BindSetting,
    MqttBroker,
    MqttUrls,
    ServiceSettings,
)


class Settings(ServiceSettings):
    mqtt_url: MqttUrls = (MqttBroker("127.0.0.1", 1883, tls=False),)
    some_bind: BindSetting = Bind("127.0.0.1", 8003)
    max_in_flight: int = 5000
    mqtt_password: SecretStr = SecretStr("")


def test_load__nothing_set__has_defaults() -> None:
    settings = Settings.load()
    assert settings.some_bind == Bind("127.0.0.1", 8003)
    assert settings.max_in_flight == 5000


def test_load__brokers__keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_URL", "mqtt://b:2883, mqtts://a")
    assert Settings.load().mqtt_url == (
        MqttBroker("b", 2883, tls=False),
        MqttBroker("a", 8883, tls=True),
    )


def test_load__two_invalid_values__are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_BIND", "8003")
    monkeypatch.setenv("MAX_IN_FLIGHT", "many")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    line = str(caught.value)
    assert "SOME_BIND: '8003' is not host:port" in line
    assert "MAX_IN_FLIGHT: " in line
    assert "\n" not in line


def test_load_or_exit__invalid_value__exits_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MQTT_URL", "http://127.0.0.1")
    with pytest.raises(SystemExit) as caught:
        Settings.load_or_exit()
    assert caught.value.code == EX_CONFIG
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "MQTT_URL" in printed


def test_settings__assignment__is_refused() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.max_in_flight = 1  # type: ignore[misc]


def test_settings__printed__hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "hunter2")
    assert "hunter2" not in repr(Settings.load())


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:80", Bind("127.0.0.1", 80)),
        ("[::1]:8000", Bind("::1", 8000)),
        ("0.0.0.0:0", Bind("0.0.0.0", 0)),
    ],
)
def test_bind__parsed_and_printed__is_the_same(text: str, bind: Bind) -> None:
    assert Bind.parse(text) == bind
    assert str(bind) == text


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:65536", "host:-1"])
def test_bind__not_an_address__is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        Bind.parse(text)
