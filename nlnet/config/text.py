"""A run as YAML text, which run folders and checkpoints contain."""

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nlnet.config.migration import migrated, schema_for
from nlnet.config.run import RunConfig
from nlnet.errors import UserError


def run_text(run: RunConfig) -> str:
    """The resolved configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(run))


def parse_run(text: str, source: str) -> RunConfig:
    """Read a text that `run_text` wrote, in this version or an older one.

    Raises UserError that names `source` if the text is no configuration of a run.
    """
    try:
        tree = migrated(text, source)
        run = OmegaConf.to_object(OmegaConf.merge(schema_for(tree), tree))
    except OmegaConfBaseException as error:
        cause = str(error).splitlines()[0]
        raise UserError(f"{source}: not a configuration of this version ({cause})") from error
    assert isinstance(run, RunConfig)
    return run
