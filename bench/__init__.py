"""Side-by-side benchmarks, one command each; results in build/bench/<name>.json."""
