"""Archives: millions of B-scans through one artifact into a data set that resumes. Needs no torch; tables need pyarrow."""
