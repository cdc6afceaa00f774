"""What error messages call the settings that a user can change."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SettingNames:
    """The name of each setting as a user writes it.

    The defaults are the names of the arguments in this package. A builder passes the names of its
    config keys instead, so that the advice in a message can be typed as it is.
    """

    root: str = "root"
    videos: str = "videos"
    classes: str = "class_names"
    allow_missing: str = "allow_missing"
    allow_bad: str = "allow_bad"


ARGUMENT_NAMES = SettingNames()
