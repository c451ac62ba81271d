"""Labels, pictures and shortcuts: what a table of scores cannot show."""
