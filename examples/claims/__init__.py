"""Insurance claims, simulated: three models and a function that decide together, as one pipeline."""
