"""The processor, the memory, the threads and the disk."""

import os
import platform
import shutil
import tempfile
from pathlib import Path

from nlnet.jobs.doctor.findings import Finding
from nlnet.runs.machine import cpu_features, cpu_model, memory, usable_cores

GB = 10**9
VECTORS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "asimd", "sve", "sve2")
BF16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16")
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
SHARED_MEMORY = Path("/dev/shm")  # the loader's processes hand the clips over in it
LOW_SHARED_MEMORY = GB // 4  # containers often have 64 MB
LOW_DISK = 2 * GB


def processor() -> list[Finding]:
    """The processor's name, vector instructions, bf16, cores, memory and thread settings."""
    features = cpu_features()
    vectors = [name for name in VECTORS if name in features]
    bf16 = [name for name in BF16 if name in features]
    total, available = memory()
    found = [
        Finding("system", platform.platform()),
        Finding("processor", cpu_model()),
        Finding("vectors", ", ".join(vectors) or "unknown"),
        Finding("bf16", ", ".join(bf16) or "no arithmetic: trainer.precision=bf16 is slow here"),
        Finding("cores", f"{usable_cores()} usable of {os.cpu_count()}"),
        Finding("memory", f"{total / GB:.1f} GB, {available / GB:.1f} GB available"),
    ]
    settings = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return [*found, Finding("variables", ", ".join(settings) or "none")]


def storage(outputs: Path = Path("outputs"), shared: Path = SHARED_MEMORY) -> list[Finding]:
    """Free space and write permission of the folder of runs, and the shared memory."""
    existing = next(
        path for path in (outputs.absolute(), *outputs.absolute().parents) if path.exists()
    )
    found = [_writable(outputs, existing)]
    free = shutil.disk_usage(existing).free
    remedy = "free disk space: a run of a ResNet-50 needs about 1 GB" if free < LOW_DISK else ""
    found.append(Finding("free space", f"{free / GB:.1f} GB", remedy))
    if shared.exists():
        size = shutil.disk_usage(shared).total
        low = size < LOW_SHARED_MEMORY
        remedy = "give data.num_workers=0, or start the container with --shm-size=2g" if low else ""
        found.append(Finding("shared memory", f"{size / GB:.2f} GB", remedy))
    return found


def _writable(outputs: Path, existing: Path) -> Finding:
    """Write and remove a file in the folder of runs, or in the nearest one above it that exists."""
    try:
        with tempfile.NamedTemporaryFile(dir=existing) as file:
            file.write(b"nlnet")
            file.flush()
    except OSError as error:
        remedy = "start from a folder that you may write to, or give hydra.run.dir=FOLDER"
        return Finding(f"{outputs}/", f"no ({error.strerror})", remedy, failed=True)
    return Finding(f"{outputs}/", "can be written")
