"""Public collections of chest films: one reader each, from label files to a Manifest."""
