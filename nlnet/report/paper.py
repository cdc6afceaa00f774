"""The published tables 2a to 2g of Wang et al., "Non-local Neural Networks", CVPR 2018, as data.

Top-1 and top-5 accuracy in percent on the validation split of Kinetics-400, fully convolutional
test with 10 clips and short side 256. The paper gives its tables without intervals or seeds. Rows
without published numbers here are of networks that the paper's table does not have.

How a run is recognized as a row of a table is in nlnet/report/tables.py; the words that make it
are the config groups of this project.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Accuracy = tuple[float, float]  # top-1, top-5
Ratios = tuple[float, float]  # parameters, multiply-adds; relative to the baseline


@dataclass(frozen=True)
class PaperRow:
    """One row: a network, by depth of its ResNet."""

    key: str  # what nlnet.report.tables finds in a run
    title: str
    words: str  # of the command line; names in braces are those of WORDS
    published: Mapping[int, Accuracy]
    ratios: Mapping[int, Ratios] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """One table; its first row is the baseline of the ratios."""

    title: str
    sweep: str  # configs/sweep
    experiments: Mapping[int, str]  # configs/experiment, by depth
    rows: tuple[PaperRow, ...]


# Words that differ between the depths.
WORDS: dict[int, dict[str, str]] = {
    14: {
        "size": "tiny",
        "five": "nl2_tiny",
        "count1": "nl1_tiny",
        "res2": "nl1_tiny_res2",
        "res3": "nl1_tiny_res3",
        "res4": "nl1_tiny",
        "res5": "nl1_tiny_res5",
    },
    50: {
        "size": "r50",
        "five": "nl5",
        "count1": "nl1",
        "count5": "nl5",
        "count10": "nl10",
        "res2": "nl1_res2",
        "res3": "nl1_res3",
        "res4": "nl1",
        "res5": "nl1_res5",
    },
    101: {
        "size": "r101",
        "five": "nl5_r101",
        "count1": "nl1_r101",
        "count5": "nl5_r101",
        "count10": "nl10_r101",
    },
}

C2D = {50: (71.8, 89.7), 101: (73.1, 91.0)}
ONE_BLOCK = {50: (72.7, 90.5), 101: (74.3, 91.3)}
FIVE_BLOCKS = {50: (73.8, 91.0), 101: (75.1, 91.7)}

TABLES: dict[str, PaperTable] = {
    "2a": PaperTable(
        "Table 2a: pairwise functions, 1 block",
        "pairwise",
        {50: "c2d_nl1"},
        (
            PaperRow("none", "C2D baseline", "block=embedded_gaussian non_local=none", C2D),
            PaperRow("gaussian", "Gaussian", "block=gaussian", {50: (72.5, 90.2)}),
            PaperRow("embedded_gaussian", "Gaussian, embed", "block=embedded_gaussian", ONE_BLOCK),
            PaperRow("dot_product", "dot-product", "block=dot_product", {50: (72.9, 90.3)}),
            PaperRow("concatenation", "concatenation", "block=concatenation", {50: (72.8, 90.5)}),
        ),
    ),
    "2b": PaperTable(
        "Table 2b: stage of 1 block (the baseline is that of table 2a)",
        "stage",
        {50: "c2d_nl1"},
        (
            PaperRow("none", "C2D baseline", "non_local=none", C2D),
            PaperRow("res2", "res2", "non_local={res2}", {50: (72.7, 90.3)}),
            PaperRow("res3", "res3", "non_local={res3}", {50: (72.9, 90.4)}),
            PaperRow("res4", "res4", "non_local={res4}", ONE_BLOCK),
            PaperRow("res5", "res5", "non_local={res5}", {50: (72.3, 90.1)}),
        ),
    ),
    "2c": PaperTable(
        "Table 2c: number of blocks",
        "blocks",
        {50: "c2d", 101: "c2d_r101"},
        (
            PaperRow("0", "C2D baseline", "non_local=none", C2D),
            PaperRow("1", "1 block", "non_local={count1}", ONE_BLOCK),
            PaperRow("5", "5 blocks", "non_local={count5}", FIVE_BLOCKS),
            PaperRow(
                "10", "10 blocks", "non_local={count10}", {50: (74.3, 91.2), 101: (75.1, 91.6)}
            ),
        ),
    ),
    "2d": PaperTable(
        "Table 2d: space, time and spacetime, 5 blocks",
        "axes",
        {50: "c2d_nl5", 101: "c2d_nl5_r101"},
        (
            PaperRow("none", "C2D baseline", "model.non_local.axes=space non_local=none", C2D),
            PaperRow(
                "space",
                "space-only",
                "non_local={five} model.non_local.axes=space",
                {50: (72.9, 90.8), 101: (74.4, 91.3)},
            ),
            PaperRow(
                "time",
                "time-only",
                "non_local={five} model.non_local.axes=time",
                {50: (73.1, 90.5), 101: (74.4, 90.5)},
            ),
            PaperRow(
                "spacetime",
                "spacetime",
                "non_local={five} model.non_local.axes=spacetime",
                FIVE_BLOCKS,
            ),
        ),
    ),
    "2e": PaperTable(
        "Table 2e: non-local blocks and 3D convolutions",
        "versus_3d",
        {101: "c2d_r101"},
        (
            PaperRow(
                "c2d", "C2D", "model=c2d_{size} non_local=none", {101: C2D[101]}, {101: (1.0, 1.0)}
            ),
            PaperRow(
                "i3d_3x3x3",
                "I3D 3x3x3",
                "model=i3d_3x3x3_{size} non_local=none",
                {101: (74.1, 91.2)},
                {101: (1.5, 1.8)},
            ),
            PaperRow(
                "i3d",
                "I3D 3x1x1",
                "model=i3d_{size} non_local=none",
                {101: (74.4, 91.1)},
                {101: (1.2, 1.5)},
            ),
            PaperRow(
                "c2d_nl",
                "NL C2D, 5 blocks",
                "model=c2d_{size} non_local={five}",
                {101: FIVE_BLOCKS[101]},
                {101: (1.2, 1.2)},
            ),
        ),
    ),
    "2f": PaperTable(
        "Table 2f: non-local 3D networks, 32 frames",
        "non_local_3d",
        {50: "c2d_32x2", 101: "c2d_32x2"},
        (
            PaperRow("c2d", "C2D", "model=c2d_{size} non_local=none", C2D),
            PaperRow(
                "i3d",
                "I3D",
                "model=i3d_{size} non_local=none",
                {50: (73.3, 90.7), 101: (74.4, 91.1)},
            ),
            PaperRow(
                "i3d_nl",
                "NL I3D, 5 blocks",
                "model=i3d_{size} non_local={five}",
                {50: (74.9, 91.6), 101: (76.0, 92.1)},
            ),
        ),
    ),
    "2g": PaperTable(
        "Table 2g: longer clips, 128 frames",
        "long_clips",
        {50: "i3d_nl5_128x1", 101: "i3d_nl5_128x1"},
        (
            PaperRow(
                "c2d",
                "C2D",
                "model=c2d_{size} non_local=none",
                {50: (73.8, 91.2), 101: (75.3, 91.8)},
            ),
            PaperRow(
                "i3d",
                "I3D",
                "model=i3d_{size} non_local=none",
                {50: (74.9, 91.7), 101: (76.4, 92.7)},
            ),
            PaperRow(
                "i3d_nl",
                "NL I3D, 5 blocks",
                "model=i3d_{size} non_local={five}",
                {50: (76.5, 92.6), 101: (77.7, 93.3)},
            ),
        ),
    ),
}
