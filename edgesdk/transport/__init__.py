"""Ways to reach an agent. Each link library is imported in exactly one module here."""
