"""The sizes that a film may have, by its header: what is absurd is never allocated."""

SHORTEST_SIDE, LONGEST_SIDE, WIDEST_RATIO = 32, 16_384, 4
LARGEST_FILE = 2 * LONGEST_SIDE**2 + 2**24  # bytes: the largest film, not compressed, and a header


def refuse_absurd(width: int, height: int) -> None:
    """Raise ValueError for a film's width and height in pixels that no film has."""
    short, long = sorted((width, height))
    if short < SHORTEST_SIDE or long > LONGEST_SIDE or long > WIDEST_RATIO * short:
        raise ValueError(
            f"absurd size: {width} x {height} pixels, expected sides of {SHORTEST_SIDE} to "
            f"{LONGEST_SIDE} and at most {WIDEST_RATIO} : 1"
        )
