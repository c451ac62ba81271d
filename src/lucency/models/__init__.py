"""Everything that needs torch: networks, weights, augmentation, training, inference, features."""
