"""Compare this installation with other implementations on this machine; print ratios.

Examples:
  python tools/benchmark.py bench=ops
  python tools/benchmark.py bench=ops quick=true json=ops.json
  python tools/benchmark.py bench=step +experiment=i3d_nl5
  python tools/benchmark.py bench=data
  python tools/benchmark.py bench=forms
  python tools/benchmark.py bench=gpu
  python tools/benchmark.py bench=gpu 'only=[i3d_nl5,blocks]'

ops   time and memory of the non-local operations, compared with naive forms and pytorchvideo
step  clips per second and memory of a whole training step of an experiment
data  clips per second and processor time of reading clips, and of training from files
forms time of every form of the softmax on a GPU; fills the table by which a softmax chooses
gpu   clips per second, utilization and memory on a GPU: networks, and blocks at res3 and res4
Tables and pictures are written to benchmarks/ (out=FOLDER). OMP_NUM_THREADS sets the threads.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nlnet.cli.tool import run_tool

if TYPE_CHECKING:
    from nlnet.config import BenchmarkConfig


def main(run: "BenchmarkConfig", out_dir: Path) -> None:
    """Measure, print the tables, and write them with their pictures to the folder `out`."""
    from nlnet.bench.gpu.run import measure_gpu
    from nlnet.bench.operations.forms import measure_forms
    from nlnet.bench.operations.run import measure_operations
    from nlnet.bench.reading.run import measure_reading
    from nlnet.bench.report import machine
    from nlnet.bench.steps.run import measure_steps
    from nlnet.checks import one_of
    from nlnet.files import write_text

    benches = {"ops": measure_operations, "step": measure_steps, "data": measure_reading}
    benches |= {"forms": measure_forms, "gpu": measure_gpu}
    measure = one_of("bench", run.bench, benches)
    facts = machine()
    report = measure(run)
    text = f"{', '.join(f'{name} {fact}' for name, fact in facts.items())}\n\n{report.markdown}\n"
    print(text)
    folder = Path(run.out)
    write_text(folder / f"{report.stem or run.bench}.md", text)
    for name, content in report.files.items():
        write_text(folder / name, content)
    if run.json is not None:
        numbers = {"machine": facts, **report.numbers}
        write_text(Path(run.json), json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    run_tool(main, config="benchmark", doc=__doc__ or "")
