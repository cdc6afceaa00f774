"""A network as a graph for other runtimes: ONNX and torch.export, compared with the eager network.

The graph takes pixels and returns probabilities and logits. The batch size is free; frames, height
and width are fixed. The non-local blocks consist of standard operators: under export their kernels
take the forms `by_rows` of nlnet/model/non_local/kernels. This is the only file that uses ONNX.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nlnet.checks import require_libraries
from nlnet.errors import UserError
from nlnet.model.classifier import VideoClassifier

INPUT = "video"
OUTPUTS = ("probabilities", "logits")
OPSET = 18  # of ONNX
TOLERANCE = 1e-4  # largest difference to the eager network, for probabilities and logits
BATCHES = (1, 2, 3)  # sizes of the inputs that are compared
CONFIG = "config.json"  # name of the entry of a graph's file that describes the network

Network = Callable[[Tensor], tuple[Tensor, ...]]


class ExportedNetwork(nn.Module):
    """What is exported: pixels (B, 3, T, H, W) uint8 -> probabilities (B, K) and logits (B, K).

    The pixels are normalized inside. Both outputs are float32; probabilities are those of
    `VideoClassifier.scores`, logits those of its forward pass.
    """

    def __init__(self, model: VideoClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.window_logits(video)  # (B, P, K), for P windows of the head
        return self.model.average(logits), logits.mean(dim=1)


class Export(NamedTuple):
    """An exported network that was compared with the eager one."""

    data: bytes  # content of the file
    difference: float  # the largest one of all outputs


def export_onnx(model: VideoClassifier, clip: tuple[int, int, int], config: str) -> Export:
    """Export a network in eval mode as ONNX with operators of the standard domain only.

    Args:
        model: on the CPU, float32
        clip: frames, height and width of the input
        config: text that is stored in the file's metadata as "config.json"

    Raises:
        UserError: a package is missing, or the exported network differs from the eager one.
    """
    require_libraries("export", ["onnx", "onnxscript", "onnxruntime"])
    network = ExportedNetwork(model).eval()
    with _quiet():
        program = torch.onnx.export(
            _trace(network, clip),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del proto.graph.value_info[:]  # shapes inside, with torch's name of the batch
    for node in (*proto.graph.node, *proto.graph.input, *proto.graph.output):
        del node.metadata_props[:]  # paths of source files
    domains = {node.domain for node in proto.graph.node} - {""}
    if domains or proto.functions:
        raise UserError(f"the ONNX graph has operators of {sorted(domains)}; report this as a bug")
    entry = proto.metadata_props.add()
    entry.key, entry.value = CONFIG, config
    data = proto.SerializeToString()
    return Export(data, largest_difference(network, run_onnx(data), clip))


def export_torch(model: VideoClassifier, clip: tuple[int, int, int], config: str) -> Export:
    """Export a network in eval mode as an ExportedProgram, which `torch.export.load` reads.

    The arguments and errors are those of `export_onnx`; the text is an extra file.
    """
    network = ExportedNetwork(model).eval()
    with _quiet():
        buffer = io.BytesIO()
        torch.export.save(_trace(network, clip), buffer, extra_files={CONFIG: config})
        loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    return Export(buffer.getvalue(), largest_difference(network, loaded, clip))


def run_onnx(data: bytes) -> Network:
    """Return a function that runs the content of an ONNX file with onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(video: Tensor) -> tuple[Tensor, ...]:
        outputs = session.run(list(OUTPUTS), {INPUT: video.numpy()})
        return tuple(torch.from_numpy(output) for output in outputs)

    return run


@torch.no_grad()
def largest_difference(network: Network, exported: Network, clip: tuple[int, int, int]) -> float:
    """Return the largest difference of the outputs for three inputs of random pixels.

    Raises UserError if it is above TOLERANCE, or not a number.
    """
    generator = torch.Generator().manual_seed(0)
    largest = torch.tensor(0.0)
    for batch in BATCHES:
        video = torch.randint(0, 256, (batch, 3, *clip), dtype=torch.uint8, generator=generator)
        for found, expected in zip(exported(video), network(video), strict=True):
            if found.shape != expected.shape:
                raise UserError(
                    f"the exported network has outputs of {tuple(found.shape)} instead of "
                    f"{tuple(expected.shape)}; nothing was written"
                )
            # torch.maximum keeps NaN.
            largest = torch.maximum(largest, (found - expected).abs().max())
    difference = float(largest)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the outputs of the exported network differ by {difference:.1e} from those of the "
            f"network, more than {TOLERANCE:.0e}; nothing was written"
        )
    return difference


def _trace(network: nn.Module, clip: tuple[int, int, int]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    example = torch.zeros(2, 3, *clip, dtype=torch.uint8)  # a batch of 1 would be a constant
    with torch.no_grad():
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: batch},), strict=False
        )
    program.example_inputs = None  # a file would contain the example
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of source files
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide messages of the exporters that the user cannot act on."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # torch and onnxscript call functions of each other and of Python that are deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
