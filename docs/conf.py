"""How Sphinx builds the documentation: ``make docs``."""

from importlib.metadata import version as installed_version
from typing import Any

from sphinx.application import Sphinx

project = "ion_actors"
author = "ion_actors contributors"
copyright = "ion_actors contributors"
release = version = installed_version("ion_actors")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
# `make bench` and `make plots` write these tables; the pages beside them include them.
exclude_patterns = ["explanation/benchmark-table.md", "neighbours/hooks-table.md", "explanation/performance/*.md"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# A longer signature has one parameter on each line.
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"ion_actors {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]


def _restore_first_sentence(
    _app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Undo napoleon's reading of ``Whether it has ended: nobody is left`` as type and description.

    The types of attributes and properties are annotated, and never in the text.
    """
    types = [line for line in lines if line.startswith(":type: ")]
    if what in {"attribute", "property"} and types:
        lines.remove(types[0])
        lines[0] = f"{types[0].removeprefix(':type: ')}: {lines[0]}"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    # After napoleon.
    app.connect("autodoc-process-docstring", _restore_first_sentence, priority=900)
