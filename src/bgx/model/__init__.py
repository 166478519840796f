"""One network, no pictures: registry, fetch, prepare, providers, session."""
