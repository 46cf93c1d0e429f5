"""Use cases that come with driftloop; each is found by its folder."""
