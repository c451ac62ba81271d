"""A protocol run: its stages, ablation, leakage study, cross-validation."""
