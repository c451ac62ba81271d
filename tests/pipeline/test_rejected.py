"""Films that cannot be prepared are told while a run prepares, not only on its page."""

from pathlib import Path

import pandas as pd
import pytest

from lucency.pipeline.stages import say_rejected


@pytest.mark.parametrize(("count", "said"), [(0, ""), (1, "1 of 9 films is"), (5, "5 of 9 films")])
def test_rejected_films_are_told_with_first_reasons(capsys, count: int, said: str):
    rejected = pd.DataFrame({"image": list("abcde")[:count], "reason": ["cut short"] * count})
    say_rejected(rejected, films=9, file=Path("rejected.csv"))
    told = capsys.readouterr().err
    assert told.count("\n") == (count > 0)
    assert ("rejected and left out: a: cut short" in told) == (count > 0)
    assert said in told
    assert ("; … (all in rejected.csv)" in told) == (count > 3)
    assert "d: cut" not in told
