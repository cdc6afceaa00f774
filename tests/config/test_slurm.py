"""hydra/launcher=slurm, as far as its configuration."""

import pytest
from hydra import compose, initialize_config_dir

from nlnet.cli.choices import CONFIG_DIR
from nlnet.config import register_schemas


def test_each_run_is_a_job_with_the_ranks_of_one_machine():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    register_schemas()
    words = ["+experiment=c2d_nl1", "data.root=x", "dist.num_procs=8", "hydra/launcher=slurm"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        launcher = compose("run", overrides=words, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (1, 1, 8)
