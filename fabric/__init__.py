"""What agent, edge and connector share; knows none of them."""
