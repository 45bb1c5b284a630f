"""python executed.py CACHE BOOK OUT: writes the notebooks that the book's build executed, with their outputs, to OUT.

They are read from the cache of the execution and not from `jupyter_execute`: there, a cell that printed in two
portions has the second one twice, since myst-nb merges the portions for the page and keeps the second as well.
"""

import sys
from pathlib import Path

import nbformat
from jupyter_cache import get_cache


def main(cache: str, book: str, out: str) -> None:
    for record in get_cache(cache).list_cache_records():
        name = Path(record.uri).resolve().relative_to(Path(book).resolve()).with_suffix(".ipynb")
        target = Path(out) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(get_cache(cache).get_cache_bundle(record.pk).nb, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
