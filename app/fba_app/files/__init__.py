"""Files: their records, their bytes, and who may have them."""
