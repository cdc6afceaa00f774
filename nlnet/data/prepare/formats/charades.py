"""Charades: CSV files of videos with any number of actions, and the names of the actions."""

from nlnet.data.index.charades import COLUMNS, read_charades
from nlnet.data.index.entries import SplitSource
from nlnet.data.index.labels import read_class_names
from nlnet.data.index.text import csv_columns
from nlnet.data.prepare.data_set import OPTIONS, DataFolder, DataSet, split_of


def list_charades(data: DataFolder) -> DataSet:
    """The videos of Charades_v1_train.csv and Charades_v1_test.csv, with all labels of a video."""
    (classes, *_) = data.find(r"Charades_v1_classes\.txt", what="Charades_v1_classes.txt")
    splits = {}
    for path in data.find(r"Charades_v1_(train|test)\.csv", what="Charades_v1_train.csv"):
        columns = csv_columns(path)
        if {*COLUMNS} <= {*columns}:
            source = SplitSource(path, "", data.videos, columns)
            splits[split_of(path.stem) or path.stem] = read_charades(source)
    return DataSet(splits, read_class_names(classes, OPTIONS))
