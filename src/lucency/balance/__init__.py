"""Label array in, Plan out. numpy only."""
