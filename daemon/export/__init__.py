"""A plate's results as files of other programs: CSV, Parquet, XLSX, Prism, MIHCSME."""
