"""Templates, styles and scripts of the pages that this wing writes."""

from importlib.resources import files

import jinja2


def template(name: str) -> jinja2.Template:
    """A template of this wing; whatever it prints is escaped unless it says otherwise."""
    # Our own templates; what they are filled with is escaped, never compiled.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def resource(name: str) -> str:
    """The text of a file of this wing."""
    return (files("frontload.eval.report.write") / name).read_text(encoding="utf-8")
