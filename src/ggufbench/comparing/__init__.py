"""Side-by-side comparisons: requests, blocks of launches, conclusions, and the commands built on them."""
