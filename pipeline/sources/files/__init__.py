"""CSV and Parquet files as a source."""
