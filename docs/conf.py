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
# `make bench` writes the table; benchmarks.md includes it.
exclude_patterns = ["explanation/benchmark-table.md"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"ion_actors {release}"
