"""The code bases whose weights nlnet reads and writes. A new one is added to this dict."""

from nlnet.weights.code_base import CodeBase
from nlnet.weights.keymap import Format
from nlnet.weights.sources import caffe2, mmaction2, pytorchvideo, slowfast, torchvision

CODE_BASES: dict[str, CodeBase] = {
    "caffe2": caffe2.CODE_BASE,
    "slowfast": slowfast.CODE_BASE,
    "mmaction2": mmaction2.CODE_BASE,
    "pytorchvideo": pytorchvideo.CODE_BASE,
    "torchvision": torchvision.CODE_BASE,
}
FORMATS: dict[str, Format] = {
    name: form for code_base in CODE_BASES.values() for name, form in code_base.formats.items()
}
