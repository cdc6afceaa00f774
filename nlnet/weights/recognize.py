"""Which format a file has, and which format can hold a network."""

from collections.abc import Collection

from nlnet.errors import UserError
from nlnet.weights.keymap import Format, from_nlnet, keys_without_name, unknown_keys
from nlnet.weights.sources.all import FORMATS


def recognize(keys: Collection[str]) -> str | None:
    """Return the name in FORMATS of the first format that knows all these keys.

    If none does, return the first whose first convolution is among the keys: an error can then
    list the unknown keys. Otherwise return None.
    """
    stems = {name: from_nlnet("backbone.conv1.weight", form) for name, form in FORMATS.items()}
    fitting = [name for name, form in FORMATS.items() if keys and not unknown_keys(keys, form)]
    return next(iter(fitting + [name for name, stem in stems.items() if stem in keys]), None)


def format_for(
    code_base: str, keys: Collection[str], subsample: str | None, pools: bool | None
) -> str:
    """Return the name in FORMATS of a code base's format that can hold a network.

    Args:
        code_base: a name in CODE_BASES
        keys: our names of the network's tensors
        subsample: where its non-local blocks pool their keys; None if that is unknown
        pools: whether time is halved after res2; None if that is unknown

    Raises:
        UserError: the code base has no such network.
    """
    forms = {name: form for name, form in FORMATS.items() if form.code_base == code_base}
    for name, form in forms.items():
        if _misfit(form, keys, subsample, pools) is None:
            return name
    nearest = min(forms.values(), key=lambda form: len(keys_without_name(keys, form)))
    raise UserError(
        f"{code_base} cannot hold this network: {_misfit(nearest, keys, subsample, pools)}; if the"
        " file does not contain its config, name the network with --experiment"
    )


def _misfit(
    form: Format, keys: Collection[str], subsample: str | None, pools: bool | None
) -> str | None:
    """Return why a format cannot hold a network with these keys; None if it can."""
    unknown = keys_without_name(keys, form)
    if unknown:
        return f"it has no name for {len(unknown)} keys ({', '.join(unknown[:5])}, ...)"
    if form.pools not in (None, pools):
        return "its networks differ in the pooling after res2"
    blocks = {key.removesuffix(".out.weight") for key in keys if key.endswith(".out.weight")}
    if not blocks or form.blocks is None:
        return None
    if subsample not in form.blocks.subsample:
        known = " or ".join(sorted(form.blocks.subsample))
        return f"its blocks pool their keys at another place (model.non_local.subsample={known})"
    if form.blocks.embedded and any(f"{block}.phi.weight" not in keys for block in blocks):
        return "its blocks always have theta and phi"
    return None
