"""The default application of fba.stack."""
