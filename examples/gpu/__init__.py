"""What a few minutes of one GPU are best spent on: tests, benchmark, a strong classifier and its certificates, l-infinity networks."""
