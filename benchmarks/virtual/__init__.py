"""Virtual time: the production code under a cost model, every node on a machine of its own, reproducible to the digit."""
