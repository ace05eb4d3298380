"""What the benchmarks make of what they measured; measuring is no test."""
