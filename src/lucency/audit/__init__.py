"""Labels, shortcuts and pictures under suspicion: what a table of scores cannot say."""
