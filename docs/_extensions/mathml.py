"""Write equations as MathML, which browsers show without a script.

Sphinx's own renderers load a script from a server, or need a LaTeX installation. The translator is
the one of docutils, which Sphinx uses anyway.
"""

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _visit_inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _visit_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, as_block: bool) -> str:
    """The MathML of an equation; raises ExtensionError that quotes one that is not understood."""
    text = node.astext()
    try:
        return str(latex2mathml.tex2mathml(text, as_block=as_block))
    except (latex2mathml.MathError, SyntaxError) as error:
        raise ExtensionError(f"an equation is not understood: {text!r} ({error})") from error
