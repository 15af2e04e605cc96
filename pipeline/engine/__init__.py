"""The only loop: who owns a partition, and what commits together."""
