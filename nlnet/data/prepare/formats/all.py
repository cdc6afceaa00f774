"""The data sets that tools/prepare.py knows. To add one, add a file and an entry here."""

from collections.abc import Callable

from nlnet.data.prepare.data_set import DataFolder, DataSet
from nlnet.data.prepare.formats.charades import list_charades
from nlnet.data.prepare.formats.diving48 import list_diving48
from nlnet.data.prepare.formats.folders import list_folders
from nlnet.data.prepare.formats.hmdb51 import list_hmdb51
from nlnet.data.prepare.formats.jester import list_jester
from nlnet.data.prepare.formats.kinetics import list_kinetics
from nlnet.data.prepare.formats.lists import list_lists
from nlnet.data.prepare.formats.something import list_something
from nlnet.data.prepare.formats.ucf101 import list_ucf101

DATA_SETS: dict[str, Callable[[DataFolder], DataSet]] = {
    "folder": list_folders,
    "list": list_lists,
    "kinetics400": list_kinetics,
    "kinetics600": list_kinetics,
    "kinetics700": list_kinetics,
    "ssv2": list_something,
    "ucf101": list_ucf101,
    "hmdb51": list_hmdb51,
    "jhmdb": list_hmdb51,
    "charades": list_charades,
    "diving48": list_diving48,
    "jester": list_jester,
}
