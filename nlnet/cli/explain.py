"""One line for an error of Hydra or OmegaConf."""

from omegaconf.errors import MissingMandatoryValue

from nlnet.cli.choices import CONFIG_DIR, choices


def explain(error: Exception) -> str:
    """One line for an error of Hydra or OmegaConf: what, which key, where to look."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, MissingMandatoryValue):
        key = str(error).rsplit(" ", 1)[-1]
        return f"{key} is not set; give {key}=VALUE"
    if error.__cause__ is not None and "Could not override" in lines[0]:
        lines += [line.strip() for line in str(error.__cause__).splitlines()]
    keys = [line for line in lines if line.startswith("full_key:")]
    options = [i for i, line in enumerate(lines) if line.startswith("Available options")]
    text = lines[0]
    if keys and keys[0].split()[-1] not in text:
        text += f" at {keys[0].split()[-1]}"
    if options:
        group = lines[options[0]].split("'")[1]
        text += "; available: " + ", ".join(choices(CONFIG_DIR / group))
    return f"{text}; see --help, or --cfg job for every key"
