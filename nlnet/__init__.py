"""nlnet: training of video action recognition with non-local networks.

Importing it is light: the modules of its functions are imported when the functions are used.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlnet.model.non_local.block import NonLocalBlock as NonLocalBlock
    from nlnet.model.non_local.insertion import insert_non_local as insert_non_local
    from nlnet.model.non_local.stages import remove_non_local as remove_non_local
    from nlnet.recognizer.recognizer import Recognizer

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the names of the blocks when they are used."""
    match name:
        case "NonLocalBlock":
            from nlnet.model.non_local.block import NonLocalBlock

            return NonLocalBlock
        case "insert_non_local":
            from nlnet.model.non_local.insertion import insert_non_local

            return insert_non_local
        case "remove_non_local":
            from nlnet.model.non_local.stages import remove_non_local

            return remove_non_local
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    source: str | Path, *, experiment: str | None = None, device: str = "auto"
) -> "Recognizer":
    """Load a trained network that classifies video files.

    A checkpoint of nlnet brings its own network, clips, views, normalization and class names. A
    public name brings those of its preset in configs/experiment. The classes of a file without
    class names are called "0", "1", ...

    Args:
        source: the path of a checkpoint or of another code base's file, a URL, or a public name
            such as "caffe2/i3d_nl5_8x8"; "FILE#WORD" takes the tensors that a file holds under
            WORD, for instance "best.pt#model"
        experiment: a name in configs/experiment whose settings replace those of the source; needed
            for a file of another code base
        device: "auto" (CUDA if there is a CUDA device), "cpu" or "cuda"

    Raises:
        UserError: there is no such file, it is damaged, or its network is not the experiment's.
    """
    # Imported here: `import nlnet` must not load torch and Hydra, which takes seconds.
    from nlnet.recognizer.load import load_recognizer

    return load_recognizer(source, experiment=experiment, device=device)
