"""Training rows read as they are needed: found as raw rows, mixed, shuffled block by block, and tokenised by whoever trains on them."""
