"""Label files to a Manifest; film files to pixels; preprocessing; splits. No torch."""
