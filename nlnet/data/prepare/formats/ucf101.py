"""UCF101: official lists for training and testing, three splits; classes are folders."""

from pathlib import Path, PurePosixPath

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.files import files_by_stem, find_file
from nlnet.data.index.text import text_lines
from nlnet.data.prepare.data_set import DataFolder, DataSet
from nlnet.errors import UserError


def list_ucf101(data: DataFolder) -> DataSet:
    """The lists of one split. Names are compared without case: HandstandPushups has both forms.

    The class of a video is its folder in the list, which lists for testing have too. The numbers of
    the lists for training are not used; they count from 1.
    """
    (index, *_) = data.find(r"classInd\.txt", what="classInd.txt")
    names = tuple(line.split(maxsplit=1)[1].strip() for _, line in text_lines(index))
    official = {name.casefold(): name for name in names}
    files: dict[str, list[Path]] = {}
    for stem, paths in files_by_stem(data.videos).items():
        files.setdefault(stem.casefold(), []).extend(paths)
    splits = {}
    for split, word in (("train", "trainlist"), ("test", "testlist")):
        name = f"{word}{data.split_number:02}.txt"
        (path, *_) = data.find(name.replace(".", r"\."), what=name)
        entries = []
        for place, line in text_lines(path):
            video = PurePosixPath(line.split()[0])
            folder = video.parent.name.casefold()
            if folder not in official:
                raise UserError(f"{place}: {folder!r} is no class of {index}; correct it")
            found = find_file(
                files, (video.stem.casefold(),), {official[folder]}, place, others=names
            )
            entries.append(Entry(place, str(video), (official[folder],), found))
        splits[split] = SplitEntries(entries)
    return DataSet(splits, names)
