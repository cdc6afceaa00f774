"""How CUDA devices compute convolutions, and products in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.backends import cuda, cudnn


@contextmanager
def cuda_arithmetic(*, cudnn_benchmark: bool, tf32: bool) -> Iterator[None]:
    """Set these choices of torch inside the context, and restore the former ones after it.

    Args:
        cudnn_benchmark: cuDNN times its kernels at the first convolution of a size, and this
            process then uses the fastest one for that size
        tf32: products and convolutions in float32 read 10 bits of the mantissa of their factors
    """
    conv = cudnn.conv  # type: ignore[attr-defined]  # it is set when torch is imported
    before = cudnn.benchmark, cuda.matmul.fp32_precision, conv.fp32_precision
    precision = "tf32" if tf32 else "ieee"
    cudnn.benchmark = cudnn_benchmark
    cuda.matmul.fp32_precision = conv.fp32_precision = precision
    try:
        yield
    finally:
        cudnn.benchmark, cuda.matmul.fp32_precision, conv.fp32_precision = before
