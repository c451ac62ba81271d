"""Predictions in, Evaluation out: metrics, bootstrap, significance, calibration, thresholds."""
