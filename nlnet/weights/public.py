"""Find weight files by path, URL or public name. Downloads use torch.hub's loader and cache."""

import os
import re
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

from torch import hub

from nlnet.demo import CHECKPOINT, DEMO
from nlnet.errors import UserError
from nlnet.files import digest
from nlnet.weights.files import read_containers
from nlnet.weights.sources.all import CODE_BASES

SCHEMES = ("http", "https", "file")
# Publishers put the first digits of the SHA-256 into the file's name: resnet50-0676ba61.pth.
CHECKSUM = re.compile(r"[-_]([0-9a-f]{8,64})\.[a-z]+$")


def split_word(source: str) -> tuple[str, str | None]:
    """Split `FILE#WORD` into the file and the word of its tensors; None without a word.

    A file whose name contains the character is taken as it is.
    """
    if "#" not in source or Path(source).exists():
        return source, None
    file, _, word = source.rpartition("#")
    return file, word


def locate(source: str) -> Path:
    """Return the file of a path, a URL or a public name; download it if it is not in the cache.

    The word `demo` is the checkpoint that is shipped with the package; `./demo` is a path. A word
    after `#`, of the tensors in the file, is ignored. Prints the license of public weights. Raises
    UserError if there is no such file.
    """
    source = split_word(source)[0]
    if source == DEMO:
        return CHECKPOINT
    path = Path(source)
    if path.exists():
        return path
    if urlparse(source).scheme in SCHEMES:
        return download(source)
    if "_Weights." in source:
        license = CODE_BASES["torchvision"].publisher.license
        print(f"weights {source}: license {license}", file=sys.stderr)
        return download(_torchvision_url(source.removeprefix("torchvision/")))
    public = public_name(source)
    if public is not None:
        code_base, _, name = public.partition("/")
        publisher = CODE_BASES[code_base].publisher
        print(f"weights {public}: license {publisher.license}", file=sys.stderr)
        return download(publisher.root + publisher.paths[name])
    code_base, _, name = source.partition("/")
    if code_base in CODE_BASES and name and not path.suffix:
        known = ", ".join(f"{code_base}/{other}" for other in CODE_BASES[code_base].publisher.paths)
        raise UserError(f"weights={source}: no such public weights; there are {known}")
    raise UserError(
        f"{source}: no such file; give a path, a URL, or a public name such as caffe2/i3d_nl5_8x8"
    )


def public_name(source: str) -> str | None:
    """Return the present public name for a present or former one; None for other sources.

    An experiment of the same name describes the network, except for the names that
    tests/test_presets.py lists.
    """
    code_base, _, name = source.partition("/")
    if code_base not in CODE_BASES:
        return None
    publisher = CODE_BASES[code_base].publisher
    name = publisher.aliases.get(name, name)
    return f"{code_base}/{name}" if name in publisher.paths else None


def _torchvision_url(name: str) -> str:
    """Return the URL of weights by torchvision's name, such as ResNet50_Weights.IMAGENET1K_V1."""
    from torchvision.models import get_weight  # takes seconds to import and is rarely needed

    try:
        return get_weight(name).url
    except (ValueError, AttributeError, KeyError) as error:
        raise UserError(f"weights={name}: torchvision knows no such weights") from error


def _is_published(url: str) -> bool:
    """Whether a publisher's file is at the URL: its name is unique and may contain a checksum."""
    return url.startswith(CODE_BASES["torchvision"].publisher.root) or any(
        url == code_base.publisher.root + path
        for code_base in CODE_BASES.values()
        for path in code_base.publisher.paths.values()
    )


def download(url: str) -> Path:
    """Download a file to torch.hub's cache, and check that it is complete and readable.

    Raises UserError if it is not; the cache is then unchanged.
    """
    folder = Path(hub.get_dir()) / "checkpoints"
    name = Path(urlparse(url).path).name
    checksum = None
    if _is_published(url):
        found = CHECKSUM.search(name)
        checksum = found[1] if found else None
    else:  # different servers may have different files of the same name, such as best.pt
        name = f"{digest(url.encode())[:12]}-{name}"
    target = folder / name
    if target.exists() and (checksum is None or digest(target.read_bytes()).startswith(checksum)):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")  # one per rank
    print(f"downloading {url} to {target}", file=sys.stderr)
    try:
        hub.download_url_to_file(url, str(partial), hash_prefix=checksum, progress=True)
        read_containers(partial)  # the file is incomplete if the connection was interrupted
        partial.replace(target)
    except (OSError, HTTPException, RuntimeError, UserError) as error:
        cause = str(error).replace(f"{partial}: ", "")
        raise UserError(f"weights={url}: the download failed ({cause}); try again") from error
    finally:
        partial.unlink(missing_ok=True)
    return target
