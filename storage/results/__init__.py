"""What a stream found and what it could not use."""
