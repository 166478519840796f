"""Pictures at work: the plan of a batch, one picture's way, how many run at once, the report."""
