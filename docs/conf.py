"""The site: make docs. Pages are Markdown (MyST), the reference comes from the docstrings."""

import inspect
import re

import ddpm_jax

project = "ddpm_jax"
author = "the authors of ddpm_jax"
copyright = "the authors of ddpm_jax. Apache 2.0"
version = release = ddpm_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook is kept with its outputs; a test executes it

html_theme = "pydata_sphinx_theme"
html_title = "ddpm_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
}

highlight_language = "text"  # of blocks that do not say what they are: commands, lists, formulas
default_role = "code"  # docstrings write `name` in single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
napoleon_attr_annotations = False


def _as_rst(app, what, name, obj, options, lines):
    """Makes reStructuredText of a docstring: `|` is no markup, and lists of files and formulas keep their layout."""
    if what == "property":  # of which Napoleon takes what stands before a colon for the type
        lines[:] = inspect.cleandoc(obj.__doc__ or "").splitlines()
    lines[:] = [re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line) for line in lines]
    kept: list[str] = []
    literal, before = False, ""
    for line in lines:
        is_field = before.startswith((":", " ", "*")) and what != "module"  # whose further lines are indented, too
        indented = line.startswith("    ") and not is_field and (before or what == "module")
        listed = what == "module" and re.search(r"\S {2,}\S", line) is not None
        still = literal and (not line or line.startswith("    "))
        if (indented or listed) and not literal:
            kept += ["", "::", ""]
        if literal and not (still or listed):
            kept.append("")
        literal = bool(indented or listed or still)
        kept.append(f"    {line.strip()}" if literal and line else line)
        before = line
    lines[:] = kept


def _link_within_the_site(app, docname, source):
    """Points at the page that includes a file of the repository, where pages link to the file."""
    if docname != "benchmarks":
        source[0] = source[0].replace("../benchmarks/results/README.md", "benchmarks.md")


def _skip(app, what, name, obj, skip, options):
    """Leaves out the fields of named tuples, which the text of the class describes."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Connects what changes docstrings and pages."""
    app.connect("autodoc-process-docstring", _as_rst)
    app.connect("autodoc-skip-member", _skip)
    app.connect("source-read", _link_within_the_site)
