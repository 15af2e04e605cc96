"""What a partition resumes from: positions, snapshots, offloaded series."""
