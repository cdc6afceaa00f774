"""Pictures of attention have the frames, sizes and colors that they should have."""

import io

import numpy as np
from PIL import Image

from nlnet.recognizer.attention import AttentionMap, VideoAttention
from nlnet.report.attention_pictures import SIDE, attention_gif, heat_frames, shown_frames, strip


def attention(num_frames: int, query: tuple[int, int, int] | None) -> VideoAttention:
    weights = np.zeros((num_frames, 4, 4))
    weights[num_frames // 2, 1, 2] = -1.0
    weights[0, 3, 0] = 0.5
    each = AttentionMap(
        layer="res4.nl3",
        query=query,
        terms={"pairwise": weights, "unary": np.abs(weights) / 4},
        map_sizes=(num_frames, 4, 4),
        kernel=(1, 1, 1),
        clip_sizes=(num_frames, 32, 32),
        softmax=False,
    )
    frames = np.full((num_frames, 32, 32, 3), 128, np.uint8)
    return VideoAttention("v.mp4", frames, ("a", "b"), np.array([0.2, 0.8]), (each,))


def test_a_strip_of_a_long_clip_has_the_frame_of_the_query_and_the_most_attended_one():
    (each,) = attention(128, (77, 3, 3)).maps
    shown = shown_frames(each)
    assert len(shown) == 8
    assert {64, 77} <= set(shown)
    assert shown == sorted(shown)


def test_negative_weights_are_blue_and_others_red():
    given = attention(4, None)
    (each,) = given.maps
    heat = [
        np.asarray(picture, int)
        for picture in heat_frames(given.frames, each, each.terms["pairwise"])
    ]
    cell = SIDE // 4
    red, _, blue = heat[2][cell + cell // 2, 2 * cell + cell // 2]
    assert blue > red
    red, _, blue = heat[0][3 * cell + cell // 2, cell // 2]
    assert red > blue


def test_a_strip_has_arrows_only_for_a_query():
    with_query, without = strip(attention(4, (1, 3, 30))), strip(attention(4, None))
    assert with_query.height > without.height + SIDE
    assert with_query.width >= 4 * SIDE


def test_an_animation_has_all_frames_and_a_column_for_each_term():
    given = attention(5, (0, 0, 0))
    with Image.open(io.BytesIO(attention_gif(given, given.maps[0]))) as gif:
        assert gif.n_frames == 5
        assert gif.width > 3 * SIDE
        assert gif.info["loop"] == 0
