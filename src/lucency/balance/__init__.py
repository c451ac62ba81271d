"""Labels in, Plan out: imbalance measures, resampling, weighting."""
