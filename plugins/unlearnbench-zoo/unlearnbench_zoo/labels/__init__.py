"""Methods that learn other labels, ascend the loss of the given ones, or learn noise for them."""
