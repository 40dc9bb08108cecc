import dataclasses

import pytest

from chargen import ChargenError
from chargen.config import ModelConfig, SampleConfig, TrainConfig


@pytest.mark.parametrize(
    "config", [ModelConfig(layers=3, units=7, embedding=5), TrainConfig(epochs=2.5, patience=4), SampleConfig()]
)
def test_a_configuration_comes_back_from_json_as_it_was(config):
    assert type(config).from_json(config.to_json()) == config


@pytest.mark.parametrize("config", [ModelConfig, TrainConfig, SampleConfig])
def test_every_option_has_help(config):
    assert all(f.metadata["help"].endswith(".") for f in dataclasses.fields(config))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"layers": "two"}, "layers"),
        ({"layers": 0}, "layers"),
        ({"units": True}, "units"),
        ({"embedding": None}, "embedding"),
        ({"units": 1.5}, "units"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named(values, named):
    with pytest.raises(ChargenError, match=named):
        ModelConfig.from_json(values)


def test_an_open_range_leaves_its_ends_out():
    with pytest.raises(ChargenError, match="validation"):
        TrainConfig.from_json({"validation": 1.0})


def test_the_units_have_no_default():
    with pytest.raises(ChargenError, match="units: it is missing"):
        ModelConfig.from_json({})


def test_an_unknown_field_is_passed_over_and_a_missing_one_takes_its_default():
    assert ModelConfig.from_json({"units": 3, "of a later version": 1}) == ModelConfig(units=3)
