"""Checks and tables that the readers of several code bases' settings share.

A reader is a pure function from a code base's own settings to a ResNetConfig. It raises UserError
for a setting that nlnet does not have: a network must not silently become another one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from nlnet.config import StageKernels
from nlnet.errors import UserError
from nlnet.model.resnet3d import STAGES
from nlnet.weights.code_base import Settings

# Temporal kernel sizes of conv1 and of the blocks of each stage; a pattern repeats over its stage.
# Source: Wang et al. 2018, section 4, and the released models.
Kernels = Mapping[str, tuple[int, ...]]
C2D: Kernels = {"conv1": (1,), "res2": (1,), "res3": (1,), "res4": (1,), "res5": (1,)}
I3D: Kernels = {"conv1": (5,), "res2": (3,), "res3": (3, 1), "res4": (3, 1), "res5": (1, 3)}
SLOW: Kernels = {"conv1": (1,), "res2": (1,), "res3": (1,), "res4": (3,), "res5": (3,)}
NORM_EPS = 1e-5  # of all batch norms in nlnet


def stage_kernels(kernels: Mapping[str, Iterable[int]]) -> StageKernels:
    """Return the entries of res2 to res5 as a config."""
    res2, res3, res4, res5 = (list(kernels[stage]) for stage in STAGES)
    return StageKernels(res2, res3, res4, res5)


def check_settings(
    section: str, settings: Settings, *, read: Iterable[str], fixed: Settings
) -> None:
    """Raise UserError for unsupported settings.

    Args:
        section: the name of the settings in the error
        settings: the settings to check
        read: keys that the reader interprets, or that only training uses
        fixed: keys that are supported with one value only
    """
    unknown = settings.keys() - set(read) - fixed.keys()
    other = [key for key, value in fixed.items() if not same(settings.get(key, value), value)]
    if unknown or other:
        raise UserError(f"unsupported {section} settings: {sorted([*unknown, *other])}")


def same(value: Any, other: Any) -> bool:
    """Compare two settings; a tuple equals a list with the same entries."""
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    return bool(value == other)


def check_eps(key: str, settings: Settings) -> None:
    """Raise UserError if the epsilon of the batch norms is set to another value than nlnet's."""
    eps = settings.get(key.rpartition(".")[2], NORM_EPS)
    if abs(eps - NORM_EPS) > 1e-4 * NORM_EPS:
        raise UserError(f"{key}={eps}: unsupported; the norms of nlnet have {NORM_EPS}")
