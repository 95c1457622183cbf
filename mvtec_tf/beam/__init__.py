"""Work on more than one machine: shards, each written whole or not at all, by the workers of an Apache Beam runner."""
