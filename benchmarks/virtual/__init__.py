"""Virtual time: the production code under a cost model, a machine per node, reproducible to the digit."""
