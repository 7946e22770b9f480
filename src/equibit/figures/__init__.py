"""From run records to pictures; one file per figure. Reads what runs wrote, never trains, needs no torch."""
