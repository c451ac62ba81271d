"""Heat maps: localization, baselines, faithfulness. No torch here."""
