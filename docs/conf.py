"""How Sphinx builds the documentation: ``make docs``."""

import sys
from importlib.metadata import version as installed_version
from typing import Any, Generic, get_origin

from docutils.nodes import Element
from sphinx.application import Sphinx

import ion_actors

project = "ion_actors"
author = "ion_actors contributors"
copyright = "ion_actors contributors"
release = version = installed_version("ion_actors")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",  # the cards of the first page
]
# Written by `make bench`, `make plots` and `make house`; the pages beside them include them.
exclude_patterns = [
    "explanation/benchmark-table.md",
    "explanation/feature-table.md",
    "explanation/import-table.md",
    "explanation/process-table.md",
    "explanation/array-table.md",
    "explanation/coroutine-table.md",
    "explanation/house-private-names.md",
    "neighbours/hooks-table.md",
    "explanation/performance/*.md",
]

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
html_js_files = ["site.js"]


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


def _keep_public_bases(
    _app: Sphinx, _name: str, _object: type, _options: Any, bases: list[Any]
) -> None:
    """What a class is, for its users: not how its code is shared out."""
    bases[:] = [one for one in bases if _is_told(get_origin(one) or one)]


def _is_told(base: type) -> bool:
    if base.__module__.startswith("ion_actors."):
        room = sys.modules[".".join(base.__module__.split(".")[:2])]
        return base.__name__ in {*ion_actors.__all__, *getattr(room, "__all__", ())}
    return base not in {object, Generic}


def _drop_empty_bases(_app: Sphinx, _domain: str, _type: str, content: Element) -> None:
    """Autodoc writes the line even if there is nothing to say."""
    for one in list(content.children):
        if one.astext() == "Bases:":
            content.remove(one)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-bases", _keep_public_bases)
    app.connect("object-description-transform", _drop_empty_bases)
    # After napoleon.
    app.connect("autodoc-process-docstring", _restore_first_sentence, priority=900)
