"""Flags of `pirl serve` and `--set` come from the fields of the configurations: names, defaults, ranges, help."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from pirl_server.config.command_line import add_settings, parse_flags, settings
from pirl_server.config.fields import parse
from pirl_server.config.serve import ServeConfig
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig


def serve(*arguments: str) -> ServeConfig:
    return parse_flags(argparse.ArgumentParser(prog="pirl serve"), ServeConfig, arguments, first="checkpoint")


def test_no_flag_is_the_default_of_its_field() -> None:
    assert serve() == ServeConfig()


def test_every_field_has_a_flag_of_its_type() -> None:
    config = serve(
        "base", "--root", "r", "--host", "::1", "--grpc-port", "1", "--rest-port", "2", "--stop-port", "0",
        "--device", "cuda", "--compile", "off", "--default-instruction", "push", "--explore",
        "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a",
        "--episode-free-mib", "64", "--keep-episodes-days", "30", "--keep-episodes-gib", "0.5",
        "--robot-rate-hz", "2.5", "--episode-memory-mib", "64", "--openpi-port", "3", "--openpi-key", "top=x",
        "--image-codec", "top=jpeg", "--gate-margin", "0.1", "--gate-robot-margin", "0.2", "--gate-alpha", "0.1",
        "--auto-rollback", "off", "--metrics-sink", "tensorboard:t", "--job-device", "cpu:0",
        "--openpi-key", "state=y", "--drain-seconds", "0", "--canary-limit", "0.5", "--exchange", "x",
        "--log-format", "json", "--allow-insecure",
    )  # fmt: skip
    same = [each.name for each in fields(ServeConfig) if getattr(config, each.name) == each.default]
    assert same == []
    assert (config.checkpoint, config.tls_key) == (Path("base"), Path("k"))
    assert (config.stop_port, config.robot_rate_hz, config.openpi_key) == (0, 2.5, ("top=x", "state=y"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--drain-seconds", "-1"), "--drain-seconds must be greater than or equal to 0, got -1.0"),
        (("--drain-seconds", "nan"), "--drain-seconds must be a finite number, got nan"),
        (("--rest-port", "65536"), "--rest-port must be less than or equal to 65535, got 65536"),
        (("--robot-rate-hz", "-2"), "--robot-rate-hz must be greater than 0, got -2.0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_flag(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        serve(*arguments)


def test_a_rate_of_0_is_no_limit_as_before() -> None:
    assert serve("--robot-rate-hz", "0").robot_rate_hz is None


def test_settings_are_numbers_texts_or_none() -> None:
    words = ["envs=4", "clip=1e-1", "critic=expert", "dual_clip=none"]
    values = settings(words)
    assert values == {"envs": 4, "clip": 0.1, "critic": "expert", "dual_clip": None}
    assert parse(PpoConfig, values) == PpoConfig(envs=4, clip=0.1, critic="expert")
    with pytest.raises(ValueError, match="'envs' is not KEY=VALUE"):
        settings(["envs"])


@pytest.mark.parametrize("kind", [PpoConfig, SftConfig, EpisodesConfig])
def test_help_lists_every_field_with_default_unit_and_range(kind: type[PpoConfig | SftConfig | EpisodesConfig]) -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser, kind)
    lines = (parser.epilog or "").splitlines()[1:]
    listed = dict(line.split()[0].split("=") for line in lines)
    assert listed == {name: "none" if value is None else str(value) for name, value in asdict(kind()).items()}
    assert "gamma=0.97  [1/decision, > 0, <= 1]" in parser.format_help() or kind is SftConfig
