"""What Wang et al. published for their own maps on the 984 boxes of ChestX-ray14.

Letters in shapes: t thresholds, k findings.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lucency.evaluation.evaluate import MACRO
from lucency.explain.localization import THRESHOLDS

SOURCE = "Wang et al., ChestX-ray8, CVPR 2017 (arXiv 1705.02315), ResNet-50, IoBB"
BOXES = {  # by finding: boxes of NIH's BBox_List_2017.csv, one a film
    "Atelectasis": 180, "Cardiomegaly": 146, "Effusion": 153, "Infiltration": 123, "Mass": 85,
    "Nodule": 79, "Pneumonia": 120, "Pneumothorax": 98,
}  # fmt: skip
ACCURACY = (  # a row a threshold, in the order of BOXES
    (.6222, 1.0, .7974, .9106, .5882, .1519, .8583, .5204),
    (.3944, .9863, .6339, .7967, .4588, .0506, .7083, .3367),
    (.1944, .9452, .4183, .6504, .3058, 0, .4833, .2653),
    (.0889, .8151, .2287, .4390, .1647, 0, .2917, .1735),
    (.0722, .6507, .1373, .3577, .0941, 0, .2333, .1224),
)  # fmt: skip
FALSE_BOXES = (  # over 984
    (.8293, .1768, .6148, .4919, .3933, .4685, .4360, .4543),
    (.9319, .2042, .6880, .5447, .4288, .4786, .4959, .4857),
    (.9979, .2785, .7652, .6006, .4604, .4827, .5630, .5030),
    (1.0285, .4045, .8222, .6697, .4827, .4827, .6169, .5243),
    (1.0356, .4837, .8445, .7043, .4939, .4827, .6331, .5346),
)  # fmt: skip


def published_localisation() -> pd.DataFrame:
    """Return the published table in the columns of `localize`, so that both stand in one.

    IoBB alone; no interval was published. The macro rows are the means of the eight findings.
    """
    rows = []
    names = (*BOXES, MACRO)
    counts = (*BOXES.values(), sum(BOXES.values()))
    for least, accuracy, afp in zip(THRESHOLDS["IoBB"], ACCURACY, FALSE_BOXES, strict=True):
        values = zip(
            names, counts, (*accuracy, np.mean(accuracy)), (*afp, np.mean(afp)), strict=True
        )
        rows += [
            {
                "method": "Wang 2017", "finding": name, "measure": "IoBB", "threshold": least,
                "boxes": count, "accuracy": float(share), "accuracy_low": np.nan,
                "accuracy_high": np.nan, "afp": float(wrong), "afp_low": np.nan,
                "afp_high": np.nan, "note": SOURCE,
            }
            for name, count, share, wrong in values
        ]  # fmt: skip
    return pd.DataFrame(rows)
