"""What a recipe holds, costs and compiles to, before any array is made."""
