import os
import signal
import subprocess
import sys
import time

CHILD = """
import time
from nlnet.distributed.signals import leave_signals_to_run
leave_signals_to_run()
print("ready", flush=True)
time.sleep(60)
"""
OTHER = "import os, sys; [os.kill(int(sys.argv[1]), int(n)) for n in sys.argv[2:]]"


def test_a_worker_ends_for_its_run_only():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        signals = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
        numbers = [str(int(signum)) for signum in signals]
        subprocess.run([sys.executable, "-c", OTHER, str(worker.pid), *numbers], check=True)
        os.kill(worker.pid, signal.SIGINT)  # from the run itself, as a launcher passes it on
        time.sleep(0.3)
        assert worker.poll() is None
        worker.terminate()
        assert worker.wait(10) == 0
