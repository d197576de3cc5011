"""The conversions of TFLite's operators, one module per group; each registers its own."""
