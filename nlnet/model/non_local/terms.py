"""The unary terms beside the pairwise function, and how W_z and gamma treat them."""

from nlnet.errors import ArgumentError, choose
from nlnet.model.non_local.axes import Pass
from nlnet.model.non_local.layers import Embedding, Logits, Output
from nlnet.model.non_local.pairwise import Pairwise
from nlnet.model.non_local.whitening import CHANNELS, POSITIONS

UNARIES: dict[str, str] = {
    "mask": "softmax_j of a map of x from C channels to 1",
    "query": "softmax_j of the mean that whitening took away from theta, times phi_j",
}
TERMS: dict[str, str] = {
    "joint": "gamma norm(W_z (y + unary))",
    "weighted": "norm(W_z (gamma y + unary))",
    "apart": "gamma norm(W_z y) + norm(W_z unary): a bias of W_z counts twice",
}


def check_terms(
    pairwise: Pairwise,
    passes: tuple[Pass, ...],
    logits: Logits,
    embedding: Embedding,
    output: Output,
) -> None:
    """Raise ArgumentError for names and combinations that have no meaning."""
    choose("terms", output.terms, TERMS)
    for name in logits.unary:
        choose("unary", name, UNARIES)
    if output.terms != "joint" and len(passes) > 1:
        raise ArgumentError(f"terms={output.terms} needs axes with one round of attention")
    if "query" in logits.unary and not (logits.whiten and POSITIONS in logits.whiten[-1].theta):
        raise ArgumentError("unary=query needs whitening of theta over the positions")
    over_channels = any(
        CHANNELS in step.theta + step.phi or step.deviation for step in logits.whiten
    )
    if pairwise.after_theta() is not None and (over_channels or embedding.norm != "none"):
        raise ArgumentError(
            f"whiten: pairwise={type(pairwise).__name__} takes whitening by the mean "
            "over positions alone"
        )
