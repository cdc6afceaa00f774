"""The statistics of single classes, against values made by hand."""

import math

import numpy as np
import pytest

from nlnet.report.classes import class_table, confusion_matrix, most_confused

# Four videos, three classes. Predictions 0, 1, 0 (a tie of 0 and 2), 2.
SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.2, 0.4], [0.0, 0.1, 0.9]])
LABELS = np.array([0, 2, 2, 2])


def test_the_confusion_matrix_leaves_out_videos_without_a_prediction():
    matrix = confusion_matrix(np.array([0, 2, 2, 2]), np.array([0, 1, 0, -1]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_the_most_confused_pairs():
    matrix = np.array([[9, 1, 0], [4, 5, 0], [0, 4, 6]])
    assert most_confused(matrix, 2) == [(1, 0, 4, 4 / 9), (2, 1, 4, 0.4)]
    assert len(most_confused(matrix, 10)) == 3
    assert most_confused(np.diag([3, 2]), 5) == []


def test_the_table_of_classes():
    rows = class_table(SCORES, LABELS)
    assert rows[0] == (0, 1, 1.0, -1, 0)
    assert math.isnan(rows[1].score) and rows[1].videos == 0
    assert rows[2] == (2, 3, pytest.approx(1 / 3), 0, 1)


def test_an_unreadable_video_lowers_the_accuracy_of_its_class():
    has_views = np.array([True, True, True, False])
    assert class_table(SCORES, LABELS, has_views)[2].score == 0


def test_the_table_of_several_labels_has_average_precision():
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    rows = class_table(SCORES, labels)
    assert [row.videos for row in rows] == [2, 1, 0]
    assert rows[0].score == pytest.approx((1 + 2 / 4) / 2)
    assert math.isnan(rows[2].score)
