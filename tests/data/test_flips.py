import pytest

from nlnet.data.flips import directional_names


@pytest.mark.parametrize(
    "name",
    [
        "swipe_left",
        "SwipeRight",
        "Pulling something from left to right",
        "circle-counterclockwise",
        "turn clockwise",
        "LEFT2",
        "moveLEFTWARDS",
    ],
)
def test_names_of_directions_are_found(name: str):
    assert directional_names(["eat", name, "walk"]) == [name]


def test_other_names_are_not_found():
    assert directional_names(["bright light", "cleft lip", "upright", "swipe_up"]) == []
