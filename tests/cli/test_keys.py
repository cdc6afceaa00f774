"""The keys of a run and their types are those of the config classes."""

from dataclasses import dataclass, field

from omegaconf import MISSING, OmegaConf

from nlnet.cli.dotted_keys import flatten
from nlnet.cli.keys import PATH_KEYS, every_key, run_keys
from nlnet.cli.words import string_keys
from nlnet.config import AdamWConfig, RunConfig, SGDConfig, StepConfig


def test_every_key_of_a_run_is_found_with_its_type():
    run = OmegaConf.structured(RunConfig(name="x", optim=SGDConfig(), schedule=StepConfig()))
    keys = run_keys()
    values = flatten(OmegaConf.to_container(run))
    assert values.keys() <= keys.keys()
    for name, value in values.items():
        if isinstance(value, bool | int | float | str) and value != MISSING:
            assert keys[name].type in (type(value), float), name  # a float may be written as 1


def test_the_keys_of_every_kind_are_found():
    keys = run_keys()
    for kind in (SGDConfig, AdamWConfig):
        assert {f"optim.{name}" for name in kind.__dataclass_fields__} <= keys.keys()
    assert keys["optim.betas"].owner is AdamWConfig
    assert "json" not in keys and "json" in every_key()  # of another tool


def test_keys_of_paths_are_string_keys():
    assert set(PATH_KEYS) <= string_keys().keys()


def test_a_key_says_what_its_value_may_be():
    @dataclass
    class Parts:
        names: list[str] = field(default_factory=list)
        sizes: list[int] | None = None

    @dataclass
    class Whole:
        parts: Parts = field(default_factory=Parts)
        share: float = 0.5
        count: int | None = None

    Whole.__annotations__["parts"] = Parts  # a class of this function, as a type
    keys = run_keys(Whole)
    assert keys["parts"].is_config and not keys["share"].is_config
    assert keys["parts.names"].wanted() == "a list of names, such as [a,b]"
    assert keys["parts.sizes"].wanted() == "a list of whole numbers, such as [1,2], or null"
    assert keys["share"].wanted() == "a number"
    assert keys["count"].wanted() == "a whole number, or null"
