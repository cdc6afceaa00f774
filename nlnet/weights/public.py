"""Public weight files by name, and any file by URL, through torch.hub's loader and cache."""

import os
import re
import sys
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

from torch import hub

from nlnet.errors import UserError
from nlnet.weights.files import read_file

SCHEMES = ("http", "https", "file")
# Publishers who name a checksum put the first digits of the SHA-256 into the file's name.
CHECKSUM = re.compile(r"[-_]([0-9a-f]{8,64})\.[a-z]+$")


class Publisher(NamedTuple):
    """Where a code base's files lie, under which licence, and their paths by our names."""

    root: str
    licence: str
    paths: dict[str, str]


CAFFE2 = Publisher(
    "https://dl.fbaipublicfiles.com/video-nonlocal/",
    "CC BY-NC 4.0, for non-commercial use only",
    {
        "c2d_32x2": "c2d_baseline_32x2_IN_pretrain_400k.pkl",
        "c2d_nonlocal_32x2": "c2d_nonlocal_32x2_IN_pretrain_400k.pkl",
        "i3d_32x2": "i3d_baseline_32x2_IN_pretrain_400k.pkl",
        "i3d_nonlocal_32x2": "i3d_nonlocal_32x2_IN_pretrain_400k.pkl",
        "i3d_128x1": "i3d_baseline_128x1_I3D_pretrain_400k.pkl",
        "i3d_nonlocal_128x1": "i3d_nonlocal_128x1_I3D_pretrain_400k.pkl",
        "c2d_8x8": "c2d_baseline_8x8_IN_pretrain_400k.pkl",
        "c2d_nonlocal_8x8": "c2d_nonlocal_8x8_IN_pretrain_400k.pkl",
        "i3d_8x8": "i3d_baseline_8x8_IN_pretrain_400k.pkl",
        "i3d_nonlocal_8x8": "i3d_nonlocal_8x8_IN_pretrain_400k.pkl",
        "i3d_32x4": "i3d_baseline_32x4_I3D_pretrain_400k.pkl",
        "i3d_nonlocal_32x4": "i3d_nonlocal_32x4_I3D_pretrain_400k.pkl",
        "i3d_8x8_300k": "i3d_baseline_8x8_IN_pretrain_300k.pkl",
        "i3d_8x8_300k_4gpu": "i3d_baseline_8x8_IN_pretrain_300k_4gpu.pkl",
        "i3d_8x8_600k_4gpu": "i3d_baseline_8x8_IN_pretrain_600k_4gpu.pkl",
    },
)
SLOWFAST = Publisher(
    "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/",
    "Apache 2.0",
    {
        "C2D_NOPOOL_8x8_R50": "C2D_NOPOOL_8x8_R50.pkl",
        "I3D_8x8_R50": "I3D_8x8_R50.pkl",
        "I3D_NLN_8x8_R50": "I3D_NLN_8x8_R50.pkl",
        "SLOWONLY_4x16_R50": "SLOWONLY_4x16_R50.pkl",
        "SLOWONLY_8x8_R50": "SLOWONLY_8x8_R50.pkl",
    },
)
PYTORCHVIDEO = Publisher(
    "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/",
    "Apache 2.0",
    {
        "c2d_r50": "C2D_8x8_R50.pyth",
        "i3d_r50": "I3D_8x8_R50.pyth",
        "slow_r50": "SLOW_8x8_R50.pyth",
        "slow_4x16_r50": "SLOW_4x16_R50.pyth",
        "r2plus1d_r50": "R2PLUS1D_16x4_R50.pyth",
        "csn_r101": "CSN_32x2_R101.pyth",
        "x3d_m": "X3D_M.pyth",
    },
)
MMACTION2_FILES = {  # our name -> the config that names the file, and the end of its name
    "i3d_32x2": ("i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e", "20220812-e213c223"),
    "i3d_dense_32x2": (
        "i3d/i3d_imagenet-pretrained-r50_8xb8-dense-32x2x1-100e",
        "20220812-9f46003f",
    ),
    "i3d_nl5_dot_product_32x2": (
        "i3d/i3d_imagenet-pretrained-r50-nl-dot-product_8xb8-32x2x1-100e",
        "20220812-8e1f2148",
    ),
    "i3d_nl5_embedded_gaussian_32x2": (
        "i3d/i3d_imagenet-pretrained-r50-nl-embedded-gaussian_8xb8-32x2x1-100e",
        "20220812-afd8f562",
    ),
    "i3d_nl5_gaussian_32x2": (
        "i3d/i3d_imagenet-pretrained-r50-nl-gaussian_8xb8-32x2x1-100e",
        "20220812-0c5cbf5a",
    ),
    "i3d_heavy_32x2": (
        "i3d/i3d_imagenet-pretrained-r50-heavy_8xb8-32x2x1-100e",
        "20220812-ed501b31",
    ),
    "c2d_nopool_8x8": ("c2d/c2d_r50-in1k-pre-nopool_8xb32-8x8x1-100e", "20221027-e0227b22"),
    "c2d_nopool_r101_8x8": ("c2d/c2d_r101-in1k-pre-nopool_8xb32-8x8x1-100e", "20221027-557bd8bc"),
    "c2d_8x8": ("c2d/c2d_r50-in1k-pre_8xb32-8x8x1-100e", "20221027-3ca304fa"),
    "c2d_16x4": ("c2d/c2d_r50-in1k-pre_8xb32-16x4x1-100e", "20221027-5f382a43"),
    "slow_8x8": ("slowonly/slowonly_r50_8xb16-8x8x1-256e", "20220901-2132fc87"),
    "slow_r101_8x8": ("slowonly/slowonly_r101_8xb16-8x8x1-196e", "20220901-e6281431"),
    "slow_nl5_4x16": (
        "slowonly/slowonly_r50-in1k-pre-nl-embedded-gaussian_8xb16-4x16x1-steplr-150e",
        "20220901-cf739c75",
    ),
}


def mmaction2_path(config: str, ending: str) -> str:
    """A file of mmaction2 bears its config's name, twice."""
    folder = f"{config}_kinetics400-rgb"
    return f"{folder}/{folder.rpartition('/')[2]}_{ending}.pth"


MMACTION2 = Publisher(
    "https://download.openmmlab.com/mmaction/v1.0/recognition/",
    "Apache 2.0",
    {name: mmaction2_path(*parts) for name, parts in MMACTION2_FILES.items()},
)
TORCHVISION = Publisher(
    "https://download.pytorch.org/models/",
    "BSD 3-Clause; trained on ImageNet, whose terms are non-commercial",
    {
        "resnet50": "resnet50-0676ba61.pth",
        "resnet50_v2": "resnet50-11ad3fa6.pth",
        "resnet101": "resnet101-63fe2227.pth",
        "resnet101_v2": "resnet101-cd907fc2.pth",
        "resnet152": "resnet152-394f9c45.pth",
        "resnet152_v2": "resnet152-f82ba261.pth",
    },
)

PUBLISHERS: dict[str, Publisher] = {
    "caffe2": CAFFE2,
    "slowfast": SLOWFAST,
    "pytorchvideo": PYTORCHVIDEO,
    "mmaction2": MMACTION2,
    "torchvision": TORCHVISION,
}


def locate(source: str) -> Path:
    """The file behind a path, a URL or a public name; what is not here yet is downloaded.

    Says whose file it is and under which licence. Raises UserError for what is nowhere.
    """
    path = Path(source)
    if path.exists():
        return path
    if urlparse(source).scheme in SCHEMES:
        return download(source)
    if "_Weights." in source:
        print(f"weights {source}: licence {PUBLISHERS['torchvision'].licence}", file=sys.stderr)
        return download(torchvision_url(source.removeprefix("torchvision/")))
    code_base, _, name = source.partition("/")
    if code_base in PUBLISHERS and name and not path.suffix:
        publisher = PUBLISHERS[code_base]
        if name not in publisher.paths:
            known = ", ".join(f"{code_base}/{other}" for other in publisher.paths)
            raise UserError(f"weights={source}: no such public weights; there are {known}")
        print(f"weights {source}: licence {publisher.licence}", file=sys.stderr)
        return download(publisher.root + publisher.paths[name])
    raise UserError(
        f"{source}: no such file; give a path, a URL, or a public name such as "
        "caffe2/i3d_nonlocal_8x8"
    )


def torchvision_url(name: str) -> str:
    """Where the weights of torchvision's own name are, such as ResNet50_Weights.IMAGENET1K_V1."""
    from torchvision.models import get_weight  # seconds to import, and rarely wanted

    try:
        return get_weight(name).url
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(f"weights={name}: torchvision knows no such weights") from error


def is_published(url: str) -> bool:
    """Whether a publisher's file is there: its name is unambiguous and may bear a checksum."""
    return url.startswith(PUBLISHERS["torchvision"].root) or any(
        url == publisher.root + path
        for publisher in PUBLISHERS.values()
        for path in publisher.paths.values()
    )


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    whole = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            whole.update(piece)
    return whole.hexdigest()


def download(url: str) -> Path:
    """A file from the web, in torch.hub's cache; whole, of its checksum, and readable.

    Raises UserError, and leaves nothing behind, if it is not.
    """
    folder = Path(hub.get_dir()) / "checkpoints"
    name = Path(urlparse(url).path).name
    checksum = None
    if is_published(url):
        found = CHECKSUM.search(name)
        checksum = found[1] if found else None
    else:  # anybody's best.pt
        name = f"{sha256(url.encode()).hexdigest()[:12]}-{name}"
    target = folder / name
    if target.exists() and (checksum is None or digest(target).startswith(checksum)):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")  # one for each rank
    print(f"downloading {url} to {target}", file=sys.stderr)
    try:
        hub.download_url_to_file(url, str(partial), hash_prefix=checksum, progress=True)
        read_file(partial)  # a connection that broke off leaves a file that is not whole
        partial.replace(target)
    except (OSError, HTTPException, RuntimeError, UserError) as error:
        cause = str(error).replace(f"{partial}: ", "")
        raise UserError(f"weights={url}: the download failed ({cause}); try again") from error
    finally:
        partial.unlink(missing_ok=True)
    return target
