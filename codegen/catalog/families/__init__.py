"""The families, one file each: data only, found by their file names."""
