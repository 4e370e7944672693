"""``make house``: write what the docs show of the code, and print the figures of the rules."""

from tests.house.code import ROOT, Modules, read
from tests.house.picture import draw
from tests.house.private_names import table
from tests.house.rules import figures, limit

_DOCS = ROOT / "docs" / "explanation"

#: What is drawn from the code, by the file that it is in.
DRAWN = {_DOCS / "house.svg": draw, _DOCS / "house-private-names.md": table}


def main(modules: Modules) -> None:
    for path, make in DRAWN.items():
        path.write_text(make(modules), "utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    for rule, figure in figures(modules).items():
        print(f"{figure:8.1f} of at most {limit(rule):5.1f}  {rule}")


if __name__ == "__main__":
    main(read())
