"""Every parser of files and of words, with files that are damaged at random (hypothesis).

Held is an input that was read, or refused by a ValueError of the program in at most three lines
that names the damaged file, or the word.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from torture.hostile_files import (
    FILES,
    LAYOUTS,
    WORDS,
    Parser,
    finished_run,
    tables_below,
    write_layouts,
)
from torture.parser_tries import WRONG, try_files, try_words
from torture.tally import Tally, script

TIMES = 10_000


def tries(times: int) -> Iterator[Tally]:
    with TemporaryDirectory() as scratch:
        home = finished_run(Path(scratch) / "home")
        for what, parser in FILES.items():
            yield counted(f"files: {what}", *try_files(parser, home, times=times))
        for what, (known, parse) in WORDS.items():
            yield counted(f"words: {what}", *try_words(known, parse, times=times))
        place = write_layouts(Path(scratch) / "layouts")
        for what, (_, read) in LAYOUTS.items():
            parser = Parser(tables_below(place / what), read)
            found = try_files(parser, place / what, times=times)
            yield counted(f"label files: {what}", *found)


def counted(what: str, found: Counter[str], examples: dict[str, str]) -> Tally:
    for kind, example in examples.items():
        print(f"  {what}: {kind}: {example}")
    held = sum(count for kind, count in found.items() if not kind.startswith(WRONG))
    text = ", ".join(f"{kind} {count}" for kind, count in sorted(found.items()))
    return Tally(what, found.total(), held, text)


if __name__ == "__main__":
    script("parsers", tries, times=TIMES, doc=__doc__ or "")
