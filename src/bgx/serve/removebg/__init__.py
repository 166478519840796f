"""remove.bg's API, version 1.0: pure functions that parse requests and make answers."""
