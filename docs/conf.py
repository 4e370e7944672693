"""How Sphinx builds the documentation: ``make docs``."""

from importlib.metadata import version as installed_version

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
exclude_patterns = ["explanation/benchmark-table.md", "explanation/performance/*.md"]

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
