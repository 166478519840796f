"""remove.bg's API, version 1.0, in pure functions: no connection, no picture is touched here."""
