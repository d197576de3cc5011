"""One module per group of operators; each registers its lowerings as it is imported."""
