"""State from which a partition resumes: positions, snapshots, offloaded series."""
