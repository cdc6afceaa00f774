"""The picture is well-formed SVG with every curve inside its axes."""

from xml.etree import ElementTree

from nlnet.bench.picture import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Curve, log_log

SVG = "{http://www.w3.org/2000/svg}"


def test_every_point_of_every_curve_is_drawn_inside_the_axes():
    curves = [
        Curve("fast", [(10, 0.02), (1_000, 0.3)]),
        Curve("slow", [(10, 0.05), (100, 1.0), (1_000, 70)], color=7, dashed=True),
    ]
    root = ElementTree.fromstring(log_log(curves, "positions", "seconds"))
    lines = root.findall(f"{SVG}polyline")
    points = [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in lines
    ]
    assert [len(line) for line in points] == [2, 3]
    for x, y in (point for line in points for point in line):
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM
    assert "stroke-dasharray" in lines[1].attrib and "stroke-dasharray" not in lines[0].attrib
    texts = {text.text for text in root.findall(f"{SVG}text")}
    assert {"fast", "slow", "positions", "seconds", "1e1", "1e3", "1e-2", "1e2"} <= texts


def test_larger_values_are_drawn_to_the_right_and_higher():
    [(x0, y0), (x1, y1)] = [
        tuple(map(float, point.split(",")))
        for point in ElementTree.fromstring(log_log([Curve("c", [(1, 1), (10, 10)])], "x", "y"))
        .findall(f"{SVG}polyline")[0]
        .attrib["points"]
        .split()
    ]
    assert x0 < x1
    assert y0 > y1  # pixel rows count downwards
