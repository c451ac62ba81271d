"""The sizes that a film and a packed file may have: what is absurd is never allocated."""

SHORTEST_SIDE, LONGEST_SIDE, WIDEST_RATIO = 32, 16_384, 4
LARGEST_FILE = 2 * LONGEST_SIDE**2 + 2**24  # bytes: the largest film, not compressed, and a header
FREE_PIXELS, MOST_PIXELS = 2**25, 50  # that a file may have anyway; of more, from one byte
FREE_BYTES, MOST_RATIO = 2**26, 100  # to which a packed file may inflate; of more, from one byte
SCAN, MOST_SCANS = b"\xff\xda", 100  # of a JPEG; a progressive one has about ten


class AbsurdSizeError(ValueError):
    """A film of a size, or with so much to decode, that no film has."""


def refuse_absurd(width: int, height: int, *, held: int) -> None:
    """Raise AbsurdSizeError for a film's width and height in pixels that no film has.

    `held` are the bytes of its file: of next to none come no films that fill the memory.
    """
    short, long = sorted((width, height))
    if short < SHORTEST_SIDE or long > LONGEST_SIDE or long > WIDEST_RATIO * short:
        raise AbsurdSizeError(
            f"absurd size: {width} x {height} pixels, expected sides of {SHORTEST_SIDE} to "
            f"{LONGEST_SIDE} and at most {WIDEST_RATIO} : 1"
        )
    if width * height > FREE_PIXELS + MOST_PIXELS * held:
        raise AbsurdSizeError(
            f"absurd size: {width} x {height} pixels in {held:,} bytes, expected at most "
            f"{FREE_PIXELS:,} and {MOST_PIXELS} more for each byte"
        )


def inflates_too_far(size: int, *, packed: int) -> bool:
    """Return whether packed bytes inflate to more than those of any film or table do."""
    return size > FREE_BYTES + MOST_RATIO * packed


def refuse_scans(jpeg: bytes) -> None:
    """Raise AbsurdSizeError for a JPEG of too many scans: each passes over all its pixels."""
    if jpeg.count(SCAN) > MOST_SCANS:
        raise AbsurdSizeError(f"absurd size: a JPEG of more than {MOST_SCANS} scans")
